"""Run or manifest -> one self-contained HTML page."""
