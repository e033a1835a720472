"""The reproduction report: the paper's claims, each judged by a rule, and where paper and code differ."""
