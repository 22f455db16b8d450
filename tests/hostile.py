"""Text that means harm: to a shell, to TOML, to Markdown, to a terminal. CANARY is what a shell would leave behind."""

from hypothesis import strategies as st

CANARY = "canary"
NASTY = (
    f"$(touch {CANARY})", f"`touch {CANARY}`", f"; touch {CANARY};", f"&& touch {CANARY}", f"| touch {CANARY}",
    f"\ntouch {CANARY}\n", f"' ; touch {CANARY} ; '", f'" ; touch {CANARY} ; "', f">{CANARY}",
    f"$IFS$(touch${{IFS}}{CANARY})", "-rf", "--", "*", "~", "\\", "'", '"', "!!", "#", "\0", "\r\n", "\t", "\x1b[2J",
    "\x7f", "á", "\u2028", "\u202e", " ", "../..", "/", "|", "[/bold]", "{{ 7 * 7 }}", "%s", "]", "=", "@",
)  # fmt: skip
MARKS = (
    "|",
    "\\|",
    "\\",
    "`",
    "```",
    "\n```\n",
    "````",
    "\n\n",
    "\r",
    "\v",
    "\u2028",
    "\n# h\n",
    "\n- i",
    "<b>",
    "~~~",
    "a",
)


def _made_of(words: tuple[str, ...]) -> st.SearchStrategy[str]:
    return st.lists(st.one_of(st.sampled_from(words), st.text(max_size=8)), max_size=6).map("".join)


text = _made_of(NASTY)
markdown = _made_of(MARKS)
