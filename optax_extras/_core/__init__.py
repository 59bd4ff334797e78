"""Private code that the families of algorithms share."""
