"""What a run looks like: summaries, tables, figures, the page, the contact sheet. Nothing here trains or launches."""
