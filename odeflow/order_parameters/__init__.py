"""Networks whose learning closes in a few order parameters, one a folder."""
