"""Does it learn? Data whose answer is known, networks that can find it and some that cannot; see __main__.py."""
