"""Speculative decoding without tensors: the acceptance rule, and proposers that look only at tokens.

======================================  ==========================================================================
:mod:`~workbench.speculative.acceptance`  which drafts are kept, and the token that follows them
:mod:`~workbench.speculative.ngram`       drafts by looking up what followed the same words before
======================================  ==========================================================================
"""
