"""How results are shown: summaries, tables, figures, the page, the contact sheet. Nothing here trains or launches."""
