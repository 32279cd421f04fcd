"""The human study (paper section 4.1): build it, serve it, analyse it.

Needs the extra `study`: `pip install 'torchxnn[study]'`.
"""
