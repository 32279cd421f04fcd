"""The benchmark on FunnyBirds, where the causes of every logit are known."""
