"""Former home of `torchxnn.data.datasets`: only `base` is kept, for files that people wrote."""
