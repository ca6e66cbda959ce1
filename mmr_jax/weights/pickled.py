"""Pickles read as data: the opcodes of a checkpoint are followed without importing, calling or building anything.

Loading a pickle runs whatever functions it names. Here a name is only ever a `Global`, and a call of it a `Record` that
says what would have been called with what; names outside the list of inert.py are refused. What the tensors are made of
is for torch_file.py to say.
"""

import pickletools

from mmr_jax.errors import UserError
from mmr_jax.weights.inert import Global, Persistent, Record, allowed

DAMAGE = (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError)


def read(data: bytes, source: str) -> object:
    """What a pickle holds, in dicts, lists, tuples, plain values, `Record`, `Global` and `Persistent`.

    UserError for a name that is not allowed (the line names it) and for a damaged pickle.
    """
    try:
        return _Reader(source).run(data)
    except UserError:
        raise
    except DAMAGE as error:
        raise UserError(f"{source}: its list of tensors is damaged ({error}); download the file again") from None


class _Reader:
    """A stack machine over the opcodes."""

    def __init__(self, source: str):
        self.source, self.stack, self.marks, self.memo = source, [], [], {}

    def run(self, data: bytes) -> object:
        for opcode, arg, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                return self.stack.pop()
            if opcode.name in _CONSTANTS:
                self.stack.append(_CONSTANTS[opcode.name](arg))
            elif opcode.name in _METHODS:
                _METHODS[opcode.name](self, arg)
            else:
                raise UserError(f"{self.source}: pickle opcode {opcode.name} has no place in a file of tensors")
        raise ValueError("it has no end")

    def name(self, name: str) -> None:
        if not allowed(name):
            raise UserError(
                f"{name if name.isprintable() else repr(name)} in {self.source} would run code on loading; "
                "save the tensors alone (a state dict), best as safetensors"
            )
        self.stack.append(Global(name))

    def stack_global(self, _) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise ValueError("a name is no text")
        self.name(f"{module}.{name}")

    def reduce(self, _) -> None:
        args, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Global) or not isinstance(args, tuple):
            raise ValueError("a call of something that is no name")
        if function.name == "collections.OrderedDict":
            self.stack.append(_pairs([x for pair in args[0] for x in pair]) if args else {})
        elif function.name == "torch.Size" or function.name.startswith("torch.jit._pickle."):
            self.stack.append(args[0])  # all take a value and return it as another type
        else:
            self.stack.append(Record(function.name, args))

    def inst(self, arg: str) -> None:
        args = tuple(self.to_mark())
        self.name(arg.replace(" ", "."))
        self.stack.append(args)
        self.reduce(None)

    def build(self, _) -> None:
        """The state of a dict (torch keeps `_metadata` there) is dropped."""
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Record):
            target.state = state
        elif not isinstance(target, dict):
            raise ValueError("a state for something that has none")

    def to_mark(self) -> list:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def gather(self, make) -> None:
        self.stack.append(make(self.to_mark()))

    def take(self, count: int) -> None:
        items = self.stack[len(self.stack) - count :]
        if len(items) < count:
            raise IndexError("the stack is empty")
        del self.stack[len(self.stack) - count :]
        self.stack.append(tuple(items))

    def set_items(self, items: list) -> None:
        self.stack[-1].update(_pairs(items))

    def set_item(self, _) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])


def _pairs(items: list) -> dict:
    """Keys are plain: the hash of a tuple of tuples can take for ever."""
    keys = items[::2]
    if len(items) % 2 or not all(isinstance(k, str | int | float | bytes | None) for k in keys):
        raise ValueError("a key that is neither text nor number")
    return dict(zip(keys, items[1::2], strict=True))


def _store(reader: _Reader, place: int | None) -> None:
    reader.memo[len(reader.memo) if place is None else place] = reader.stack[-1]


_CONSTANTS = {"NONE": lambda _: None, "NEWTRUE": lambda _: True, "NEWFALSE": lambda _: False}
_CONSTANTS |= {
    "EMPTY_LIST": lambda _: [],
    "EMPTY_DICT": lambda _: {},
    "EMPTY_TUPLE": lambda _: (),
    "EMPTY_SET": lambda _: [],
}
_PLAIN = (
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE"
)
_PLAIN += " SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8"
_CONSTANTS |= {name: lambda arg: arg for name in _PLAIN.split()}
_METHODS = {
    **dict.fromkeys(("PROTO", "FRAME"), lambda r, arg: None),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _store),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda r, arg: r.stack.append(r.memo[arg])),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _Reader.reduce),
    "MARK": lambda r, _: r.marks.append(len(r.stack)),
    "POP": lambda r, _: r.stack.pop(),
    "POP_MARK": lambda r, _: r.to_mark(),
    "DUP": lambda r, _: r.stack.append(r.stack[-1]),
    "GLOBAL": lambda r, arg: r.name(arg.replace(" ", ".")),
    "STACK_GLOBAL": _Reader.stack_global,
    "INST": _Reader.inst,
    "BUILD": _Reader.build,
    "PERSID": lambda r, arg: r.stack.append(Persistent(arg)),
    "BINPERSID": lambda r, _: r.stack.append(Persistent(r.stack.pop())),
    "LIST": lambda r, _: r.gather(list),
    "TUPLE": lambda r, _: r.gather(tuple),
    "FROZENSET": lambda r, _: r.gather(list),
    "DICT": lambda r, _: r.gather(_pairs),
    "TUPLE1": lambda r, _: r.take(1),
    "TUPLE2": lambda r, _: r.take(2),
    "TUPLE3": lambda r, _: r.take(3),
    "APPEND": lambda r, _: (lambda x: r.stack[-1].append(x))(r.stack.pop()),
    "APPENDS": lambda r, _: (lambda items: r.stack[-1].extend(items))(r.to_mark()),
    "ADDITEMS": lambda r, _: (lambda items: r.stack[-1].extend(items))(r.to_mark()),
    "SETITEM": _Reader.set_item,
    "SETITEMS": lambda r, _: r.set_items(r.to_mark()),
}
