"""Look instead of read: a product as one HTML page that needs no network, no server and no other file.

`gather.gather` opens the files and measures; `page.write` shows what was gathered, and `page.data` are its numbers.
"""
