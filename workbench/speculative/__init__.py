"""Speculative decoding without tensors: the acceptance rule, and proposers that look only at tokens.

===========================================  ==========================================================================
:mod:`~workbench.speculative.acceptance`     which drafts are kept, and the token that follows them
:mod:`~workbench.speculative.proposer`       what a proposer is asked for, and what it answers
:mod:`~workbench.speculative.methods`        the methods by name
:mod:`~workbench.speculative.ngram`          drafts by looking up what followed the same words before
:mod:`~workbench.speculative.suffix`         drafts by counting what followed them, here and in the answers given before
:mod:`~workbench.speculative.suffix_tree`    the counts behind it
:mod:`~workbench.speculative.synthetic`      drafts that are right at a chosen rate
===========================================  ==========================================================================
"""
