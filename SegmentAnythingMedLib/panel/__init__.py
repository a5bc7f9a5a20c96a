"""What a panel shows and does, without any widget toolkit: the desktop module and the browser app draw the same."""
