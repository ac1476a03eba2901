"""Included parts of files end where their code does, without blank lines."""

from docutils import nodes


def strip_blocks(app, doctree):
    """Take blank lines off the end of every literal block."""
    for block in doctree.findall(nodes.literal_block):
        code = block.astext().rstrip("\n")
        if block.rawsource == block.astext():
            block.rawsource = code
            block[:] = [nodes.Text(code)]


def setup(app):
    app.connect("doctree-read", strip_blocks)
    return {"version": "1", "parallel_read_safe": True}
