"""From files to pixels: a scene is opened, measured for its shift, and put on a canvas."""
