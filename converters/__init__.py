"""Other people's weights in and out, and packages for other engines."""
