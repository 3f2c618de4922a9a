"""Drafters: whoever proposes drafts for a :class:`~workbench.runners.torch_runner.TorchRunner`, one file each.

=======================================  ======================================================================================
:mod:`~workbench.runners.drafters.tokens`  from tokens alone: ``ngram``, ``suffix``
:mod:`~workbench.runners.drafters.eagle`   a trained head on the target's features: ``eagle``
:mod:`~workbench.runners.drafters.own`     the target itself, made cheaper (``draft:skip:N``, ``draft:int8``, ``draft:int4``) or run
                                           ahead as the oracle of ``synthetic``
:mod:`~workbench.runners.drafters.model`   another model: ``draft:MODEL``
=======================================  ======================================================================================
"""
