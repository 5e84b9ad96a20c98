"""Names that a hostile or careless user could give to a data set, a defense or an attack."""

#: Text that must stay text in a page: every one carries ``xss`` where a parser that takes it for markup shows it.
MARKUP = (
    "<script>xss</script>", "<img src=x onerror=xss>", "\"><svg onload=xss>", "'><xss>", "</title><xss>",
    "</script><xss>", "<!--<xss>-->", "]]><xss>", "{{ xss }}", "{% xss %}", "&lt;xss&gt;", "<a href=javascript:xss>x",
    "<style>@import 'xss'</style>", "\u202exss\u202c", "<\x00xss>", "<xss\n>", "$\\xss{x}$", "\\input{xss}",
    "<iframe srcdoc='<xss>'>", "x" * 300 + "<xss>",
)  # fmt: skip

#: Text that a spreadsheet would compute.
FORMULAS = (
    "=1+1", "+1+1", "-1+1", "@SUM(1)", "\t=1+1", "\r=1+1", "\n=1+1", " =1+1", "   =1+1", "\u00a0=1+1", "\uff1d1+1",
    "\uff0b1+1", "\uff0d1+1", "\uff20SUM(1)", "=HYPERLINK(\"http://x\",\"x\")", "=cmd|' /C calc'!A0", "\ufeff=1+1",
    "\u200b=1+1", "\"=1+1", "';=1+1",
)  # fmt: skip
