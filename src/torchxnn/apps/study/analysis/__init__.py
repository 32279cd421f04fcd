"""From exported answers to statistics, figures and a report; sample size and preregistration."""
