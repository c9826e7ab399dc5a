"""Run-time values of the language of generated code, and the LLVM text that they become.

`lang` is the language itself and says what it is; here are its values (`Val`), the function being
written (`Emitter`), memory, and structures in memory (`Layout`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.core.lang import Module


class CompileError(Exception):
    """The source uses something that the language does not have, or mixes widths."""


def bits_of(ty: str) -> int:
    """Width in bits of an integer, float or vector type."""
    if ty[0] == "i":
        return int(ty[1:])
    if ty[0] == "<":
        count, _, element = ty[1:-1].split(" ", 2)
        return int(count) * bits_of(element)
    return {"float": 32, "double": 64, "x86_fp80": 80, "ptr": 64}[ty]


def is_float(ty: str) -> bool:
    """True for floating point scalars and vectors of them."""
    element = ty[1:-1].split(" ", 2)[2] if ty[0] == "<" else ty
    return element in ("float", "double", "x86_fp80")


class Emitter:
    """The function that is being compiled: its text, its current block, its counters."""

    current: Emitter  # set while a function is compiled; the compiler is single-threaded

    def __init__(self, module: Module) -> None:
        self.module = module
        self.allocas: list[str] = []
        self.lines: list[str] = []
        self.counter = 0
        self.block = "entry"
        self.closed = False
        self.fixed: dict[str, int] | None = None
        """Values of the holes, where they are known while compiling (see regions)."""
        self.place: Callable[[int], Val] | None = None
        """Where the field of the processor at an offset is kept meanwhile."""

    def fresh(self) -> str:
        self.counter += 1
        return f"%v{self.counter}"

    def label(self, hint: str) -> str:
        self.counter += 1
        return f"{hint}{self.counter}"

    def put(self, line: str) -> None:
        if not self.closed:
            self.lines.append(f"  {line}")

    def val(self, ty: str, code: str) -> Val:
        """Emit ``name = code`` and return the name as a value of type `ty`."""
        name = self.fresh()
        if not self.closed:
            self.lines.append(f"  {name} = {code}")
        return Val(name, ty)

    def branch(self, label: str) -> None:
        self.put(f"br label %{label}")
        self.closed = True

    def cond_branch(self, cond: Val, then: str, other: str, likely: bool | None = None) -> None:
        weight = "" if likely is None else f", !prof !{0 if likely else 1}"
        self.put(f"br i1 {cond.ref}, label %{then}, label %{other}{weight}")
        self.closed = True

    def open(self, label: str) -> None:
        self.lines.append(f"{label}:")
        self.block = label
        self.closed = False


class Val:
    """A value known at run time: `ref` is its name or constant in LLVM's text, `ty` its type."""

    __slots__ = ("ref", "ty")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, ref: str, ty: str) -> None:
        self.ref = ref
        self.ty = ty

    def __repr__(self) -> str:
        return f"{self.ty} {self.ref}"

    def __bool__(self) -> bool:
        raise CompileError("a run-time value was used as a compile-time condition")

    def _bin(self, other: Any, iop: str, fop: str = "") -> Val:
        o = coerce(other, self.ty)
        if Emitter.current.fixed is not None and (known := _folded(iop, self, o)) is not None:
            return const(known, self.ty)
        op = fop if is_float(self.ty) else iop
        if not op:
            raise CompileError(f"no {iop} on {self.ty}")
        return Emitter.current.val(self.ty, f"{op} {self.ty} {self.ref}, {o.ref}")

    def _rbin(self, other: Any, iop: str, fop: str = "") -> Val:
        return coerce(other, self.ty)._bin(self, iop, fop)

    def __add__(self, o: Any) -> Val:
        return self._bin(o, "add", "fadd")

    def __radd__(self, o: Any) -> Val:
        return self._rbin(o, "add", "fadd")

    def __sub__(self, o: Any) -> Val:
        return self._bin(o, "sub", "fsub")

    def __rsub__(self, o: Any) -> Val:
        return self._rbin(o, "sub", "fsub")

    def __mul__(self, o: Any) -> Val:
        return self._bin(o, "mul", "fmul")

    def __rmul__(self, o: Any) -> Val:
        return self._rbin(o, "mul", "fmul")

    def __truediv__(self, o: Any) -> Val:
        return self._bin(o, "", "fdiv")

    def __floordiv__(self, o: Any) -> Val:
        return self._bin(o, "udiv")

    def __mod__(self, o: Any) -> Val:
        return self._bin(o, "urem")

    def __and__(self, o: Any) -> Val:
        return self._bin(o, "and")

    __rand__ = __and__

    def __or__(self, o: Any) -> Val:
        return self._bin(o, "or")

    __ror__ = __or__

    def __xor__(self, o: Any) -> Val:
        return self._bin(o, "xor")

    __rxor__ = __xor__

    def __lshift__(self, o: Any) -> Val:
        return self._bin(o, "shl")

    def __rlshift__(self, o: Any) -> Val:
        return self._rbin(o, "shl")

    def __rshift__(self, o: Any) -> Val:
        return self._bin(o, "lshr")

    def __rrshift__(self, o: Any) -> Val:
        return self._rbin(o, "lshr")

    def __invert__(self) -> Val:
        return self._bin(-1, "xor")

    def __neg__(self) -> Val:
        if is_float(self.ty):
            return Emitter.current.val(self.ty, f"fneg {self.ty} {self.ref}")
        return self._rbin(0, "sub")

    def _cmp(self, o: Any, ipred: str, fpred: str) -> Val:
        other = coerce(o, self.ty)
        if Emitter.current.fixed is not None and (known := _folded(ipred, self, other)) is not None:
            return const(known, "i1")
        code = f"fcmp {fpred}" if is_float(self.ty) else f"icmp {ipred}"
        ty = "i1" if self.ty[0] != "<" else f"{self.ty.split(' x ')[0]} x i1>"
        return Emitter.current.val(ty, f"{code} {self.ty} {self.ref}, {other.ref}")

    def __eq__(self, o: Any) -> Val:  # type: ignore[override]
        return self._cmp(o, "eq", "oeq")

    def __ne__(self, o: Any) -> Val:  # type: ignore[override]
        return self._cmp(o, "ne", "une")

    def __lt__(self, o: Any) -> Val:
        return self._cmp(o, "ult", "olt")

    def __le__(self, o: Any) -> Val:
        return self._cmp(o, "ule", "ole")

    def __gt__(self, o: Any) -> Val:
        return self._cmp(o, "ugt", "ogt")

    def __ge__(self, o: Any) -> Val:
        return self._cmp(o, "uge", "oge")

    def slt(self, o: Any) -> Val:
        return self._cmp(o, "slt", "")

    def sle(self, o: Any) -> Val:
        return self._cmp(o, "sle", "")

    def sgt(self, o: Any) -> Val:
        return self._cmp(o, "sgt", "")

    def sge(self, o: Any) -> Val:
        return self._cmp(o, "sge", "")

    def sar(self, o: Any) -> Val:
        return self._bin(o, "ashr")

    def sdiv(self, o: Any) -> Val:
        return self._bin(o, "sdiv")

    def srem(self, o: Any) -> Val:
        return self._bin(o, "srem")

    def cast(self, op: str, ty: str) -> Val:
        if Emitter.current.fixed is not None and (known := number_of(self)) is not None:
            if op in ("zext", "trunc"):
                return const(known, ty)
        return Emitter.current.val(ty, f"{op} {self.ty} {self.ref} to {ty}")

    def zx(self, bits: int) -> Val:
        """Zero-extend an integer to `bits`; the same width is allowed, a narrower one is an
        error.
        """
        return self if self.ty == f"i{bits}" else self.cast("zext", f"i{bits}")

    def sx(self, bits: int) -> Val:
        """Sign-extend an integer to `bits`."""
        return self if self.ty == f"i{bits}" else self.cast("sext", f"i{bits}")

    def tr(self, bits: int) -> Val:
        """Truncate an integer to `bits`."""
        return self if self.ty == f"i{bits}" else self.cast("trunc", f"i{bits}")

    def to(self, bits: int) -> Val:
        """Zero-extend or truncate to `bits`."""
        return self.zx(bits) if bits >= bits_of(self.ty) else self.tr(bits)

    def bitcast(self, ty: str) -> Val:
        return self if self.ty == ty else self.cast("bitcast", ty)

    @property
    def bits(self) -> int:
        return bits_of(self.ty)

    def lane(self, i: Any) -> Val:
        """Element `i` of a vector."""
        element = self.ty[1:-1].split(" ", 2)[2]
        index = i.ref if isinstance(i, Val) else str(i)
        ity = i.ty if isinstance(i, Val) else "i32"
        return Emitter.current.val(element, f"extractelement {self.ty} {self.ref}, {ity} {index}")

    def with_lane(self, i: Any, v: Any) -> Val:
        """A copy of a vector with element `i` replaced."""
        element = self.ty[1:-1].split(" ", 2)[2]
        value = coerce(v, element)
        index = i.ref if isinstance(i, Val) else str(i)
        ity = i.ty if isinstance(i, Val) else "i32"
        return Emitter.current.val(
            self.ty, f"insertelement {self.ty} {self.ref}, {element} {value.ref}, {ity} {index}"
        )


def number_of(v: Val) -> int | None:
    """The value of an integer constant, unsigned; None for what is not known."""
    if v.ty[0] != "i":
        return None
    if v.ref in ("true", "false"):
        return int(v.ref == "true")
    digits = v.ref.removeprefix("-")
    return int(v.ref) & ((1 << bits_of(v.ty)) - 1) if digits.isdigit() else None


_FOLDS: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "shl": lambda a, b: a << b if b < 256 else 0,
    "lshr": lambda a, b: a >> b,
    "eq": lambda a, b: int(a == b),
    "ne": lambda a, b: int(a != b),
    "ult": lambda a, b: int(a < b),
    "ule": lambda a, b: int(a <= b),
    "ugt": lambda a, b: int(a > b),
    "uge": lambda a, b: int(a >= b),
}


def _folded(what: str, a: Val, b: Val) -> int | None:
    """The result of an operation on two constants."""
    fold = _FOLDS.get(what)
    if fold is None or (x := number_of(a)) is None or (y := number_of(b)) is None:
        return None
    return fold(x, y)


def const(value: int, ty: str) -> Val:
    """An integer constant of type `ty`, wrapped to its width; for a vector, every element."""
    if ty[0] == "<":
        count, _, element = ty[1:-1].split(" ", 2)
        one = const(value, element).ref
        return Val("<" + ", ".join([f"{element} {one}"] * int(count)) + ">", ty)
    if ty == "ptr":
        return Val("null" if value == 0 else f"inttoptr (i64 {value} to ptr)", ty)
    if ty in ("float", "double"):
        return Val(f"{float(value):.6e}", ty)
    bits = bits_of(ty)
    value &= (1 << bits) - 1
    if bits == 1:
        return Val("true" if value else "false", ty)
    if value >> (bits - 1):
        value -= 1 << bits
    return Val(str(value), ty)


def coerce(x: Any, ty: str) -> Val:
    """`x` as a value of type `ty`: Python ints become constants, other types must already match."""
    if isinstance(x, Val):
        if x.ty != ty:
            raise CompileError(f"expected a value of type {ty}, not {x!r}")
        return x
    if isinstance(x, bool | int):
        return const(int(x), ty)
    raise CompileError(f"expected a value of type {ty}, not {x!r}")


def _maker(bits: int) -> Callable[[Any], Val]:
    ty = f"i{bits}"

    def make(x: Any) -> Val:
        if isinstance(x, Val):
            return x.to(bits)
        return const(x, ty)

    make.__name__ = f"u{bits}"
    return make


u1, u8, u16, u32, u64, u128 = (_maker(n) for n in (1, 8, 16, 32, 64, 128))


def undef(ty: str) -> Val:
    """A value that nobody reads."""
    return Val("undef", ty)


def select(cond: Any, a: Any, b: Any) -> Any:
    """`a` if `cond` else `b`, without a branch; both are evaluated."""
    if not isinstance(cond, Val):
        return a if cond else b
    ty = a.ty if isinstance(a, Val) else b.ty
    a, b = coerce(a, ty), coerce(b, ty)
    return Emitter.current.val(ty, f"select {cond.ty} {cond.ref}, {ty} {a.ref}, {ty} {b.ref}")


def intrinsic(name: str, ret: str, *args: Any) -> Val:
    """Call an LLVM intrinsic or an external function by its full name; arguments are `Val`s."""
    e = Emitter.current
    e.module.declare(name, f"declare {ret} @{name}({', '.join(a.ty for a in args)})")
    text = f"call {ret} @{name}({', '.join(f'{a.ty} {a.ref}' for a in args)})"
    if ret == "void":
        e.put(text)
        return Val("", "void")
    return e.val(ret, text)


def ctpop(x: Val) -> Val:
    """Number of set bits."""
    return intrinsic(f"llvm.ctpop.{x.ty}", x.ty, x)


def cttz(x: Val) -> Val:
    """Number of trailing zero bits; the width for zero."""
    return intrinsic(f"llvm.cttz.{x.ty}", x.ty, x, const(0, "i1"))


def ctlz(x: Val) -> Val:
    """Number of leading zero bits; the width for zero."""
    return intrinsic(f"llvm.ctlz.{x.ty}", x.ty, x, const(0, "i1"))


def bswap(x: Val) -> Val:
    return intrinsic(f"llvm.bswap.{x.ty}", x.ty, x)


def fshl(a: Val, b: Val, n: Val) -> Val:
    """Funnel shift left; with a == b a rotate."""
    return intrinsic(f"llvm.fshl.{a.ty}", a.ty, a, b, n)


def fshr(a: Val, b: Val, n: Val) -> Val:
    return intrinsic(f"llvm.fshr.{a.ty}", a.ty, a, b, n)


def shuffle(a: Val, b: Val, indices: Sequence[int]) -> Val:
    """LLVM's shufflevector with constant indices (elements of a, then of b)."""
    element = a.ty[1:-1].split(" ", 2)[2]
    mask = "<" + ", ".join(f"i32 {i}" for i in indices) + ">"
    ty = f"<{len(indices)} x {element}>"
    return Emitter.current.val(
        ty, f"shufflevector {a.ty} {a.ref}, {b.ty} {b.ref}, <{len(indices)} x i32> {mask}"
    )


def pointer(address: Val) -> Val:
    """An integer address as a pointer."""
    if address.ty == "ptr":
        return address
    return Emitter.current.val("ptr", f"inttoptr i64 {address.ref} to ptr")


def address_of(p: Val) -> Val:
    """A pointer as an integer."""
    return p if p.ty == "i64" else Emitter.current.val("i64", f"ptrtoint ptr {p.ref} to i64")


def load(address: Val, ty: str, align: int = 1) -> Val:
    """Load a `ty` from a host address (i64 or ptr)."""
    p = pointer(address)
    return Emitter.current.val(ty, f"load {ty}, ptr {p.ref}, align {align}")


def store(address: Val, value: Val, align: int = 1) -> None:
    """Store `value` at a host address (i64 or ptr)."""
    p = pointer(address)
    Emitter.current.put(f"store {value.ty} {value.ref}, ptr {p.ref}, align {align}")


def offset(base: Val, n: Any) -> Val:
    """`base` (ptr or i64) moved by `n` bytes."""
    if base.ty == "ptr":
        place = Emitter.current.place
        if place is not None and base.ref == "%cpu":
            at = number_of(n) if isinstance(n, Val) else n
            if at is not None:
                return place(at)
        ref = n.ref if isinstance(n, Val) else str(n)
        return Emitter.current.val("ptr", f"getelementptr i8, ptr {base.ref}, i64 {ref}")
    moved: Val = base + n
    return moved


class ArrayView:
    """Elements of an array field, by constant or run-time index."""

    def __init__(self, base: Val, start: int, ty: str) -> None:
        self._at: tuple[Val, int, str] = (base, start, ty)

    def at(self, index: Any) -> Val:
        """Address of element `index`."""
        base, start, ty = self._at
        size = bits_of(ty) // 8 if ty != "x86_fp80" else 16
        if isinstance(index, Val):
            return offset(offset(base, start), index.zx(64) * size)
        return offset(base, start + index * size)

    def __getitem__(self, index: Any) -> Val:
        return load(self.at(index), self._at[2])

    def __setitem__(self, index: Any, value: Any) -> None:
        store(self.at(index), coerce(value, self._at[2]))


class Layout:
    """A structure in memory: names, types and offsets, the one description of it.

    Fields are ``(name, type)`` or ``(name, type, count)``; each is aligned to its size (at most
    16).
    """

    def __init__(self, name: str, fields: Sequence[tuple[Any, ...]]) -> None:
        self.name = name
        self.fields: dict[str, tuple[int, str, int]] = {}
        at = 0
        for field in fields:
            fname, ty, count = field if len(field) == 3 else (*field, 1)
            size = 16 if ty == "x86_fp80" else bits_of(ty) // 8
            align = min(size, 16)
            at = (at + align - 1) // align * align
            self.fields[fname] = (at, ty, count)
            at += size * count
        self.size = (at + 63) // 64 * 64

    def offset(self, name: str, index: int = 0) -> int:
        """Byte offset of a field, or of its element `index`."""
        at, ty, _count = self.fields[name]
        return at + index * (16 if ty == "x86_fp80" else bits_of(ty) // 8)

    def view(self, base: Val) -> View:
        return View(self, base)


class View:
    """Build-time proxy of a structure: reading an attribute loads, assigning one stores."""

    def __init__(self, layout: Layout, base: Val) -> None:
        object.__setattr__(self, "_layout", layout)
        object.__setattr__(self, "_base", base)

    def __getattr__(self, name: str) -> Any:
        at, ty, count = self._layout.fields[name]
        if count > 1:
            return ArrayView(self._base, at, ty)
        return load(offset(self._base, at), ty)

    def __setattr__(self, name: str, value: Any) -> None:
        at, ty, count = self._layout.fields[name]
        if count > 1:
            raise CompileError(f"{name} is an array")
        store(offset(self._base, at), coerce(value, ty))
