"""Figures 2, 3 and 6 of the paper and its appendix A: likelihoods, p-values, and what attacks change."""
