"""`report.html`: one self-contained page on one or several studies, made from their records alone."""
