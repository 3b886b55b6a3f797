"""A log as a terminal would show it: bytes in, rows of text out, and nothing in them that a terminal obeys. Pure.

Not a terminal's emulator from elsewhere: those keep a screen of fixed width, and take a minute for a line of 50 MB.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field
from itertools import takewhile

from cloudtrain.core import secrets
from cloudtrain.core.text import screen_safe, wide

MOST_LINE = 64 * 1024
"""Columns of a row; what is longer goes on in the next one."""
ROWS = 25
"""Rows that the cursor can go back to. A program that nobody tells a height believes in as many."""

_PLAIN = re.compile(r"[ -~]*")
# Text; control sequences (CSI); strings (OSC and others), which are over where another sequence or the line ends; other
# sequences; single controls. Those of several characters also where the rest of them is still to come.
_TOKEN = re.compile(
    r"([ -~]+|[^\x00-\x9f]+)"
    r"|(?:\x1b\[|\x9b)([0-?]*+)([ -/]*+)([@-~]?)"
    r"|(\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\r\x1b\x9c]*+[\x07\x9c]?"
    r"|\x1b[ -/]*+[0-~]?"
    r"|[\x00-\x1f\x7f-\x9f]",
)
_LONGEST_SEQUENCE = 64
# A row of more columns is nothing that is drawn: nobody comes back to it, nor is it kept.
_MOST_DRAWN = 1024
_MOST_MARKS = 16


@dataclass(slots=True)
class _Row:
    """One row: its cells, of which a wide letter and a tab fill several, the later ones empty, or text as it came.

    `redrawn`: the cursor has come back to it.
    """

    cells: list[str] | str = field(default_factory=list)
    redrawn: bool = False

    def to_write(self) -> list[str]:
        """Its cells, to be changed."""
        if isinstance(self.cells, str):
            self.cells = list(self.cells)
        return self.cells

    def text(self, most: int = MOST_LINE) -> str:
        """Its last `most` cells as text."""
        text = secrets.hide("".join(self.cells[-most:]))
        return text.rstrip() if self.redrawn else text


class LogText:
    """Raw log bytes, as they come, to the rows that a terminal shows in the end: whole UTF-8, of a redrawn row its last
    state. Into which pieces the bytes are cut makes no difference.

    A row is given when it is done: the cursor is below it, and a program that redraws as tqdm and Rich do will not come
    back to it. If it does all the same, the row is given again as it becomes. Neither the memory nor the work for a
    byte grows with the length of a line.
    """

    def __init__(self) -> None:
        self._secrets = secrets.HiddenBytes()
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._cut = ""  # the beginning of a sequence whose rest is still to come
        self._hidden = False  # the cursor is: somebody draws,
        self._ended = False  # or did so a moment ago
        self._rows: list[_Row] = []
        self._first = 0  # number of the first of these rows; what counts rows below does so by such numbers
        self._begin()

    def _begin(self) -> None:
        """An empty screen."""
        self._first += len(self._rows)
        self._rows = [_Row()]
        self._given = self._at = self._top = self._first
        self._column = 0
        self._returned = False  # by a carriage return, and nothing was written since
        self._drew = False  # something after such a return, and the cursor has stayed in its row
        # What may be drawn again: the rows from `_frame` on, and `_reach` rows above the last one.
        self._frame, self._reach = self._first, 0

    def feed(self, data: bytes, *, final: bool = False) -> list[str]:
        """The rows that are done with `data`; with `final` also the others."""
        given: list[str] = []
        data = self._secrets.feed(data, final=final)
        *lines, last = self._decoder.decode(data, final).split("\n")
        if len(lines) > 4 * ROWS:
            self._whole(lines.pop(0), given)
            if (past := self._scrolled(lines)) > 0:
                given += lines[:past]
                del lines[:past]
                self._begin()
        for line in lines:
            self._whole(line, given)
        self._line(last, given)
        if final:
            self._cut = ""
            self._hidden = self._ended = False
            self._clear(given)
        return given

    def _scrolled(self, lines: list[str]) -> int:
        """How many of the next `lines` are only printed, and out of reach when the last of their kind is: they are
        given as they are, many times quicker."""
        if self._hidden or self._ended or self._given != self._at:
            return 0
        printed = takewhile(lambda line: line.isprintable() and len(line) <= MOST_LINE // 2, lines)
        return sum(1 for _ in printed) - ROWS

    def _whole(self, line: str, given: list[str]) -> None:
        self._line(line, given)
        self._cut = ""
        self._down(given)

    def open_rows(self, most: int = MOST_LINE) -> list[str]:
        """What a terminal shows by now below the rows that were given: of each row its last `most` columns."""
        rows = self._rows[self._given - self._first :]
        while rows and not any(cell.strip() for cell in rows[-1].cells):
            rows.pop()
        return [row.text(most) for row in rows]

    @property
    def drawn(self) -> bool:
        """Whether the cursor has come back to one of the open rows."""
        return any(row.redrawn for row in self._rows[self._given - self._first :])

    @property
    def _last(self) -> int:
        return self._first + len(self._rows) - 1

    @property
    def _row(self) -> _Row:
        return self._rows[self._at - self._first]

    def _line(self, text: str, given: list[str]) -> None:
        """Write what holds no end of a line."""
        row = self._row
        fresh = not (self._cut or row.cells or row.redrawn or self._returned or self._ended)
        if fresh and len(text) <= MOST_LINE and _PLAIN.fullmatch(text):  # nearly all lines, and many times quicker
            row.cells, self._column = text, len(text)
            return
        text, self._cut = self._cut + text, ""
        for token in _TOKEN.finditer(text):
            written, arguments, between, ending, opening = token.groups()
            if written is not None:
                self._write(written, given)
            elif ending:
                if not between and len(arguments) <= _LONGEST_SEQUENCE:
                    self._obey(arguments, ending, given)
            elif token.end() == len(text) and (cut := _unfinished(token.group(), opening)):
                self._cut = cut
            else:
                self._single(token.group())

    def _single(self, control: str) -> None:
        row = self._row
        if control == "\r":
            self._column, self._returned = 0, True
        elif control == "\b":
            self._column = max(0, self._column - 1)
            row.redrawn = True
        elif control == "\t" and self._column < MOST_LINE:
            stop = self._column // 8 * 8 + 8
            if self._column >= len(row.cells):
                self._put(["\t", *[""] * (stop - self._column - 1)])
            self._column = stop

    def _write(self, text: str, given: list[str]) -> None:
        again = self._returned and self._drew and self._at == self._last and not self._hidden
        if self._ended or again:  # what is above is left as it is, else the cursor had gone up
            self._ended = False
            self._frame, self._reach = self._at, 0
            self._give(given)
        if not text.isascii():
            text = screen_safe(text)
        if text.isascii() or all(wide(letter) == 1 for letter in text):
            while text:
                if self._column == MOST_LINE:
                    self._down(given)
                piece = text[: MOST_LINE - self._column]
                self._put(list(piece))
                self._column += len(piece)
                text = text[len(piece) :]
            return
        for letter in text:
            columns = wide(letter)
            if not columns and self._column and self._mark(letter):
                continue
            cells = [letter, ""][: max(columns, 1)]
            if self._column + len(cells) > MOST_LINE:
                self._down(given)
            self._put(cells)
            self._column += len(cells)

    def _put(self, cells: list[str]) -> None:
        """Write over what is at the cursor."""
        self._row.redrawn |= self._returned
        self._drew |= self._returned
        self._returned = False
        row, begin, end = self._to_write(), self._column, self._column + len(cells)
        if begin > len(row):
            row += [" "] * (begin - len(row))
        elif begin < len(row):
            _split(row, begin)
            _split(row, end)
        row[begin:end] = cells

    def _mark(self, mark: str) -> bool:
        """Add an accent to the letter before the cursor; False: there is none, or it has enough of them."""
        row, at = self._to_write(), self._column - 1
        while 0 < at < len(row) and not row[at]:
            at -= 1
        if at >= len(row) or len(row[at]) > _MOST_MARKS:
            return False
        row[at] += mark
        return True

    def _to_write(self) -> list[str]:
        """The cells of the cursor's row; if it has been given, it will be given again."""
        self._given = min(self._given, self._at)
        return self._row.to_write()

    def _obey(self, arguments: str, ending: str, given: list[str]) -> None:
        if arguments == "?25" and ending in "hl":
            self._ended = self._hidden and ending == "h"
            self._hidden = ending == "l"
            return
        if ending not in "ABCDEFGHfJK" or not re.fullmatch("[0-9;]*", arguments):
            return
        first, second = ([min(int(number or 0), MOST_LINE) for number in arguments.split(";")] + [0])[:2]
        if ending in "JK":
            if ending == "J" and first == 2:
                self._clear(given)
            elif first < 3:
                self._erase(first, below=ending == "J" and first == 0)
            return
        match ending:
            case "A" | "F":
                self._go(self._at - max(1, first))
            case "B" | "E":
                self._go(self._at + max(1, first))
            case "H" | "f":
                self._go(max(self._first, self._top) + max(1, first) - 1)
        column = {"C": self._column + max(1, first), "D": self._column - max(1, first), "G": first - 1, "H": second - 1}
        self._column = max(0, min(column.get("H" if ending == "f" else ending, self._column), _MOST_DRAWN - 1))
        if ending in "EF":
            self._column = 0
        self._returned = False
        self._row.redrawn = True

    def _go(self, to: int) -> None:
        """To another row of the screen."""
        came, self._drew = self._at, False
        self._at = max(self._first, self._top, min(to, self._last))
        if self._at < came:
            self._ended = False
            self._frame, self._reach = self._at, max(self._reach, self._last - self._at)

    def _erase(self, which: int, *, below: bool) -> None:
        """Part of the cursor's row: 0 from the cursor on, 1 up to it, 2 all of it; or also all rows below."""
        row = self._to_write()
        if which == 1 and self._column < _MOST_DRAWN:
            row[: self._column + 1] = [" "] * min(self._column + 1, len(row))
        elif which != 1:
            begin = 0 if which == 2 else self._column
            _split(row, begin)
            self._row.redrawn |= begin < len(row)
            del row[begin:]
        for lower in self._rows[self._at - self._first + 1 :] if below else ():
            lower.cells, lower.redrawn = [], True

    def _down(self, given: list[str]) -> None:
        """To the beginning of the next row."""
        left = self._row
        if len(left.cells) > _MOST_DRAWN:
            self._clear(given)
            return
        self._at += 1
        self._column, self._returned, self._drew = 0, False, False
        if self._at <= self._last:
            return
        self._rows.append(_Row())
        if not self._hidden:
            if not left.redrawn and (left.cells or self._frame == self._at - 1):
                self._frame, self._reach = self._at, 0  # a line that was just printed: nothing is drawn any more
            elif self._at - self._frame > 2 * self._reach + 1:
                self._frame = self._at - max(self._reach, 1)
        self._give(given)

    def _give(self, given: list[str]) -> None:
        """The rows that nobody comes back to, or can."""
        beyond = self._last - ROWS + 1
        for _ in range(max(beyond, min(self._frame, self._last - self._reach)) - self._given):
            given.append(self._rows[self._given - self._first].text())
            self._given += 1
        if beyond > self._first:
            del self._rows[: beyond - self._first]
            self._first = beyond

    def _clear(self, given: list[str]) -> None:
        """All that stands there is done: it moves up, out of reach, as most terminals do on that order."""
        given += self.open_rows()
        self._begin()


def _unfinished(sequence: str, opening: str | None) -> str:
    """Of a sequence that the end of the text has cut as much as its rest needs; "": it is whole, or a single control.

    Args:
        opening: what it begins with, where it is a string.
    """
    if opening is not None:
        return "" if sequence[-1] in "\x07\x9c" else opening
    if sequence[0] == "\x9b" or sequence[:2] == "\x1b[":
        return sequence[: 2 * _LONGEST_SEQUENCE]
    return sequence[:2] if sequence[0] == "\x1b" and sequence[-1] < "0" else ""


def _split(row: list[str], at: int) -> None:
    """Something else begins in `row` at `at`: a letter that reaches over that place is blank."""
    if at < len(row) and not row[at]:
        begin = end = at
        while begin > 0 and not row[begin]:
            begin -= 1
        while end < len(row) and not row[end]:
            end += 1
        row[begin:end] = [" "] * (end - begin)
