"""A small language in Python's clothes, compiled to LLVM.

A function of this language is ordinary Python source that is *partially evaluated*: every
expression
is either a plain Python object (known while compiling: sizes, operand kinds, tables) or a `Val`
(a machine value known only when the code runs).  What is plain Python is executed at once, so an
``if size == 4`` costs nothing in the result; what touches a `Val` becomes LLVM instructions.

* integers are `Val`s of type i1 to i128; ``+ - * & | ^ << >> // %`` and comparisons are *unsigned*
  and wrap; `slt`, `sar`, `sdiv`... are the signed ones.  Widths never mix silently.
* a Python int beside a `Val` takes its type.  ``x = u64(0)`` makes a run-time variable.
* ``if``/``while``/``and``/``or``/conditional expressions on a `Val` become branches; ``for`` is
unrolled.
* a call of an `Fn` (decorator `fn`) is a call in the generated code; a call of a function marked
  `inline` is expanded in place; any other callable is called while compiling.

The output is the text of an LLVM module: text is several times faster to make than a tree of
objects.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from workbench.core.values import (
    ArrayView,
    CompileError,
    Emitter,
    Layout,
    Val,
    View,
    address_of,
    bits_of,
    bswap,
    coerce,
    const,
    ctlz,
    ctpop,
    cttz,
    fshl,
    fshr,
    intrinsic,
    is_float,
    load,
    number_of,
    offset,
    pointer,
    select,
    shuffle,
    store,
    u1,
    u8,
    u16,
    u32,
    u64,
    u128,
    undef,
)

__all__ = [
    "ArrayView",
    "CompileError",
    "Emitter",
    "Fn",
    "Layout",
    "Module",
    "Val",
    "Var",
    "View",
    "address_of",
    "bits_of",
    "bswap",
    "call",
    "coerce",
    "const",
    "ctlz",
    "ctpop",
    "cttz",
    "evaluate",
    "fn",
    "fshl",
    "fshr",
    "inline",
    "intrinsic",
    "is_float",
    "likely",
    "load",
    "offset",
    "pointer",
    "select",
    "shuffle",
    "store",
    "truth",
    "u1",
    "u8",
    "u16",
    "u32",
    "u64",
    "u128",
    "undef",
    "unlikely",
]


# --------------------------------------------------------------------------- functions and modules


class Fn:
    """A function of the generated code (C calling convention)."""

    def __init__(self, py: Callable[..., Any], params: Sequence[str], ret: str, name: str) -> None:
        self.py, self.params, self.ret, self.name = py, tuple(params), ret, name
        self.attributes = "nounwind"

    def __repr__(self) -> str:
        return f"Fn({self.name})"

    def __call__(self, *args: Any) -> Any:
        """Call it while compiling."""
        return self.call(args)

    def call(self, args: Sequence[Any]) -> Val | None:
        """Emit a call with these arguments; its result, or None for a void function."""
        if len(args) != len(self.params):
            raise CompileError(f"{self.name} takes {len(self.params)} arguments, not {len(args)}")
        e = Emitter.current
        e.module.need(self)
        vals = [coerce(a, t) for a, t in zip(args, self.params, strict=True)]
        text = f"call {self.ret} @{self.name}({', '.join(map(repr, vals))})"
        if self.ret == "void":
            e.put(text)
            return None
        return e.val(self.ret, text)


def fn(*params: str, ret: str = "void", name: str | None = None) -> Callable[[Any], Fn]:
    """Declare a function of the generated code: parameter types, then ``ret``."""

    def wrap(py: Callable[..., Any]) -> Fn:
        return Fn(py, params, ret, name or py.__name__)

    return wrap


def inline(py: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a function that is expanded where it is called."""
    py.__wb_inline__ = True  # type: ignore[attr-defined]
    return py


class Module:
    """LLVM module text under construction: functions by name, declarations, constants."""

    def __init__(self) -> None:
        self.defined: dict[str, str] = {}
        self.declared: dict[str, str] = {}
        self.globals: dict[str, str] = {}
        self.queue: list[Fn] = []
        self.extern_all = False  # every Fn lives in another module; `wanted` collects them
        self.wanted: dict[str, Fn] = {}

    def declare(self, name: str, line: str) -> None:
        self.declared.setdefault(name, line)

    def need(self, f: Fn) -> None:
        """Make sure that `f` is compiled here, or declared if it lives elsewhere."""
        if self.extern_all:
            self.wanted[f.name] = f
            self.declare(
                f.name, f"declare dso_local {f.ret} @{f.name}({', '.join(f.params)}) nounwind"
            )
        elif f.name not in self.defined:
            self.defined[f.name] = ""
            self.queue.append(f)

    def compile(self, f: Fn) -> None:
        self.need(f)
        while self.queue:
            self._compile_now(self.queue.pop())

    def _compile_now(self, f: Fn) -> None:
        where = f'section ".text.{f.name}"'
        head = f"define dso_local {f.ret} @{f.name}({{params}}) {f.attributes} {where}"
        names = [f"%a{i}" for i in range(len(f.params))]
        vals = [Val(n, t) for n, t in zip(names, f.params, strict=True)]

        def body() -> None:
            result = evaluate(f.py, vals, f.ret)
            e = Emitter.current
            if not e.closed:
                if f.ret != "void":
                    result = coerce(result, f.ret)
                    e.put(f"ret {f.ret} {result.ref}")
                else:
                    e.put("ret void")
                e.closed = True

        params = ", ".join(f"{t} {n}" for n, t in zip(names, f.params, strict=True))
        self.define(f.name, head.replace("{params}", params), body)

    def define(self, name: str, head: str, body: Callable[[], None]) -> None:
        """Emit a function whose text is made by `body` through `Emitter.current`."""
        outer = getattr(Emitter, "current", None)
        e = Emitter.current = Emitter(self)
        try:
            body()
        except CompileError as err:
            raise CompileError(f"in {name}: {err}") from err
        finally:
            if outer is not None:
                Emitter.current = outer
        text = "\n".join([head + " {", "entry:", *e.allocas, *e.lines, "}"])
        self.defined[name] = text

    def text(self) -> str:
        declared = [d for n, d in self.declared.items() if n not in self.defined]
        parts = [*self.globals.values(), *declared, *self.defined.values()]
        parts.append('!0 = !{!"branch_weights", i32 2000, i32 1}')
        parts.append('!1 = !{!"branch_weights", i32 1, i32 2000}')
        parts.append("!99 = !{i64 -2147483648, i64 2147483647}")
        return "\n".join(parts) + "\n"


# --------------------------------------------------------------------------- the partial evaluator


class Var:
    """A run-time variable: a stack slot that LLVM turns into registers."""

    __slots__ = ("slot", "ty")

    def __init__(self, ty: str) -> None:
        e = Emitter.current
        self.ty = ty
        self.slot = e.fresh()
        e.allocas.append(f"  {self.slot} = alloca {ty}")

    def get(self) -> Val:
        return Emitter.current.val(self.ty, f"load {self.ty}, ptr {self.slot}")

    def set(self, value: Any) -> None:
        v = coerce(value, self.ty)
        Emitter.current.put(f"store {self.ty} {v.ref}, ptr {self.slot}")


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


_SOURCES: dict[Any, ast.FunctionDef] = {}


def _source(py: Callable[..., Any]) -> ast.FunctionDef:
    code = py.__code__
    if code not in _SOURCES:
        text = textwrap.dedent(inspect.getsource(py))
        tree = ast.parse(text).body[0]
        if not isinstance(tree, ast.FunctionDef):
            raise CompileError(f"{py.__name__} is not a plain function")
        _SOURCES[code] = tree
    return _SOURCES[code]


_ASSIGNED: dict[int, dict[str, int]] = {}


def _assigned(tree: ast.FunctionDef) -> dict[str, int]:
    """The names that a function's body assigns, and in how many places."""
    if id(tree) not in _ASSIGNED:
        found = _ASSIGNED[id(tree)] = {}
        for n in ast.walk(tree):
            if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store):
                found[n.id] = found.get(n.id, 0) + 1
    return _ASSIGNED[id(tree)]


def evaluate(py: Callable[..., Any], args: Sequence[Any], ret: str | None = None) -> Any:
    """Expand `py` here with `args`.  With `ret` it is a function body and ``return`` returns."""
    return _Frame(py, ret).run(args, {})


def likely(x: Any) -> Any:
    """Hint for the next ``if``: the condition is almost always true."""
    return _Hint(x, True) if isinstance(x, Val) else x


def unlikely(x: Any) -> Any:
    """Hint for the next ``if``: the condition is almost never true."""
    return _Hint(x, False) if isinstance(x, Val) else x


class _Hint:
    def __init__(self, value: Val, taken: bool) -> None:
        self.value, self.taken = value, taken


class _Frame:
    """One activation of a function that is being expanded."""

    def __init__(self, py: Callable[..., Any], ret: str | None) -> None:
        self.py = py
        self.ret = ret
        self.env: dict[str, Any] = {}
        self.assigned: dict[str, int] = {}
        self.bound_in: dict[str, int] = {}
        self.scopes = [0]
        self.scope_counter = 0
        self.loops: list[tuple[str, str] | int] = []
        self.returns: list[tuple[str, Any]] = []
        self.ret_label = ""
        self.static_result: Any = None
        self.done = False
        free = {}
        if py.__closure__:
            free = dict(
                zip(py.__code__.co_freevars, [c.cell_contents for c in py.__closure__], strict=True)
            )
        self.outer = {**vars(builtins), **py.__globals__, **free}

    def run(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        tree = _source(self.py)
        names = [a.arg for a in tree.args.args]
        given = dict(zip(names, args, strict=False))
        given.update(kwargs)
        defaults = self.py.__defaults__ or ()
        for name, d in zip(names[len(names) - len(defaults) :], defaults, strict=True):
            given.setdefault(name, d)
        if tree.args.vararg:
            self.env[tree.args.vararg.arg] = tuple(args[len(names) :])
        if set(given) != set(names):
            raise CompileError(f"{self.py.__name__} takes {names}, not {list(given)}")
        changed = self.assigned = _assigned(tree)
        for name, v in given.items():
            if name in changed:
                self.assign_name(name, v)
            else:  # a parameter that is never assigned keeps its value, no variable is needed
                self.env[name] = v
                self.bound_in[name] = self.scopes[-1]
        self.body(tree.body)
        return self.finish()

    def finish(self) -> Any:
        e = Emitter.current
        if not self.returns:
            return self.static_result
        if not e.closed:  # the end was reached by falling or by a return in the outermost scope
            self.returns.append((e.block, self.static_result))
            e.branch(self.ret_label)
        e.open(self.ret_label)
        return self.phi([v for _, v in self.returns], [b for b, _ in self.returns])

    def phi(self, values: list[Any], blocks: list[str]) -> Any:
        first = values[0]
        if all(v is None for v in values):
            return None
        if isinstance(first, tuple):
            return tuple(self.phi([v[i] for v in values], blocks) for i in range(len(first)))
        typed = [v for v in values if isinstance(v, Val)]
        if not typed:
            if all(v == first for v in values):
                return first
            raise CompileError(
                f"{self.py.__name__} returns different plain values {values}; use u64()"
            )
        ty = typed[0].ty
        arms = ", ".join(
            f"[ {coerce(v, ty).ref}, %{b} ]" for v, b in zip(values, blocks, strict=True)
        )
        return Emitter.current.val(ty, f"phi {ty} {arms}")

    # -- statements

    def body(self, stmts: Sequence[ast.stmt]) -> None:
        for s in stmts:
            if Emitter.current.closed or self.done:
                return
            try:
                getattr(self, "s_" + type(s).__name__)(s)
            except CompileError as err:
                if "(line)" in str(err):
                    raise
                where = (
                    f"{self.py.__name__} (line {self.py.__code__.co_firstlineno + s.lineno - 1})"
                )
                raise CompileError(f"(line) {where}: {err}") from err
            except (_Break, _Continue):
                raise
            except (AttributeError, TypeError, KeyError, IndexError, ValueError) as err:
                where = (
                    f"{self.py.__name__} (line {self.py.__code__.co_firstlineno + s.lineno - 1})"
                )
                raise CompileError(f"{where}: {type(err).__name__}: {err}") from err

    def enter(self) -> None:
        self.scope_counter += 1
        self.scopes.append(self.scope_counter)

    def leave(self) -> None:
        scope = self.scopes.pop()
        for name in [n for n, s in self.bound_in.items() if s == scope]:
            del self.bound_in[name]
            if not isinstance(self.env.get(name), Var):
                self.env.pop(name, None)

    def s_Pass(self, s: ast.Pass) -> None:
        pass

    def s_Expr(self, s: ast.Expr) -> None:
        self.eval(s.value)

    def s_Assert(self, s: ast.Assert) -> None:
        value = self.eval(s.test)
        if isinstance(value, Val) or not value:
            raise CompileError(f"assertion failed: {ast.unparse(s.test)}")

    def s_Assign(self, s: ast.Assign) -> None:
        value = self.eval(s.value)
        for target in s.targets:
            self.assign(target, value)

    def s_AnnAssign(self, s: ast.AnnAssign) -> None:
        if s.value is not None:
            self.assign(s.target, self.eval(s.value))

    def s_AugAssign(self, s: ast.AugAssign) -> None:
        load_target = ast.parse(ast.unparse(s.target), mode="eval").body
        value = self.binop(type(s.op), self.eval(load_target), self.eval(s.value))
        self.assign(s.target, value)

    def assign(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Name):
            self.assign_name(target.id, value)
        elif isinstance(target, ast.Tuple):
            for t, v in zip(target.elts, value, strict=True):
                self.assign(t, v)
        elif isinstance(target, ast.Attribute):
            setattr(self.eval(target.value), target.attr, value)
        elif isinstance(target, ast.Subscript):
            self.eval(target.value)[self.eval(target.slice)] = value
        else:
            raise CompileError(f"cannot assign to {ast.unparse(target)}")

    def assign_name(self, name: str, value: Any) -> None:
        old = self.env.get(name)
        if isinstance(old, Var):
            if isinstance(value, Val | int) and not (isinstance(value, Val) and value.ty != old.ty):
                old.set(value)
                return
            if self.bound_in.get(name) != self.scopes[-1]:
                raise CompileError(f"{name} is a {old.ty} and cannot become {value!r} here")
        elif name in self.env and self.bound_in.get(name) != self.scopes[-1]:
            if not isinstance(value, Val) and type(old) is type(value) and old == value:
                return
            raise CompileError(
                f"{name} is {old!r} outside of this branch and cannot become {value!r} in it; "
                "give it a type first, as in u64(0)"
            )
        if isinstance(value, Val) and not self._settled(name, value):
            var = Var(value.ty)
            var.set(value)
            self.env[name] = var
        else:
            self.env[name] = value
        self.bound_in[name] = self.scopes[-1]

    def _settled(self, name: str, value: Val) -> bool:
        """Is it a constant, where holes are known, and stays so?"""
        once = self.assigned.get(name) == 1
        return once and Emitter.current.fixed is not None and number_of(value) is not None

    def s_If(self, s: ast.If) -> None:
        cond = self.eval(s.test)
        hint: bool | None = None
        if isinstance(cond, _Hint):
            hint = cond.taken
            cond = cond.value
        cond = _decided(cond)
        if not isinstance(cond, Val):
            self.body(s.body if cond else s.orelse)
            return
        e = Emitter.current
        cond = truth(cond)
        then, other, end = e.label("then"), e.label("else"), e.label("end")
        e.cond_branch(cond, then, other if s.orelse else end, hint)
        for label, stmts in ((then, s.body), (other, s.orelse)):
            if stmts:
                e.open(label)
                self.enter()
                self.body(stmts)
                self.leave()
                if not e.closed:
                    e.branch(end)
        e.open(end)
        if s.orelse and not any(f"label %{end}" in line for line in e.lines[-4000:]):
            e.put("unreachable")
            e.closed = True

    def s_While(self, s: ast.While) -> None:
        e = Emitter.current
        top, inside, end = e.label("while"), e.label("do"), e.label("done")
        e.branch(top)
        e.open(top)
        self.enter()
        cond = self.eval(s.test)
        hint: bool | None = None
        if isinstance(cond, _Hint):
            hint = cond.taken
            cond = cond.value
        if isinstance(cond, Val):
            e.cond_branch(truth(cond), inside, end, hint)
        else:
            if not cond:
                raise CompileError("a loop that never runs")
            e.branch(inside)
        e.open(inside)
        self.loops.append((top, end))
        self.body(s.body)
        self.loops.pop()
        if not e.closed:
            e.branch(top)
        self.leave()
        e.open(end)
        if not isinstance(cond, Val) and not any(f"label %{end}" in line for line in e.lines):
            e.put("unreachable")
            e.closed = True

    def s_For(self, s: ast.For) -> None:
        items = self.eval(s.iter)
        self.loops.append(self.scopes[-1])
        for item in items:
            self.assign(s.target, item)
            try:
                self.body(s.body)
            except _Break:
                break
            except _Continue:
                continue
        self.loops.pop()

    def s_Break(self, s: ast.Break) -> None:
        self.jump(1, _Break)

    def s_Continue(self, s: ast.Continue) -> None:
        self.jump(0, _Continue)

    def jump(self, which: int, static: type[Exception]) -> None:
        loop = self.loops[-1]
        if isinstance(loop, int):
            if loop != self.scopes[-1]:
                raise CompileError(
                    "break or continue of an unrolled loop under a run-time condition"
                )
            raise static
        Emitter.current.branch(loop[which])

    def s_Return(self, s: ast.Return) -> None:
        value = self.eval(s.value) if s.value is not None else None
        if isinstance(value, _Hint):
            value = value.value
        e = Emitter.current
        if e.closed:
            return
        if self.ret is not None:
            if self.ret == "void":
                e.put("ret void")
            else:
                e.put(f"ret {self.ret} {coerce(value, self.ret).ref}")
            e.closed = True
            return
        if len(self.scopes) == 1:
            self.static_result = value
            self.done = True
            return
        if not self.ret_label:
            self.ret_label = e.label("ret")
        self.returns.append((e.block, value))
        e.branch(self.ret_label)

    # -- expressions

    def eval(self, node: ast.expr) -> Any:
        return getattr(self, "e_" + type(node).__name__)(node)

    def e_Constant(self, n: ast.Constant) -> Any:
        return n.value

    def e_Name(self, n: ast.Name) -> Any:
        if n.id in self.env:
            v = self.env[n.id]
            return v.get() if isinstance(v, Var) else v
        if n.id in self.outer:
            return self.outer[n.id]
        raise CompileError(f"the name {n.id} is not known here")

    def e_Attribute(self, n: ast.Attribute) -> Any:
        return getattr(self.eval(n.value), n.attr)

    def e_Subscript(self, n: ast.Subscript) -> Any:
        return self.eval(n.value)[self.eval(n.slice)]

    def e_Slice(self, n: ast.Slice) -> Any:
        return slice(*(None if x is None else self.eval(x) for x in (n.lower, n.upper, n.step)))

    def e_Tuple(self, n: ast.Tuple) -> Any:
        return tuple(self.eval(x) for x in n.elts)

    def e_List(self, n: ast.List) -> Any:
        return [self.eval(x) for x in n.elts]

    def e_Dict(self, n: ast.Dict) -> Any:
        return {self.eval(k): self.eval(v) for k, v in zip(n.keys, n.values, strict=True) if k}

    def e_ListComp(self, n: ast.ListComp) -> Any:
        (gen,) = n.generators
        out = []
        for item in self.eval(gen.iter):
            self.assign(gen.target, item)
            if all(self.eval(c) for c in gen.ifs):
                out.append(self.eval(n.elt))
        return out

    def e_JoinedStr(self, n: ast.JoinedStr) -> str:
        return "".join(
            str(v.value) if isinstance(v, ast.Constant) else str(self.eval(v.value))  # type: ignore[attr-defined]
            for v in n.values
        )

    def e_UnaryOp(self, n: ast.UnaryOp) -> Any:
        v = self.eval(n.operand)
        if isinstance(n.op, ast.Not):
            if isinstance(v, _Hint):
                v = v.value
            return truth(v) ^ 1 if isinstance(v, Val) else not v
        if isinstance(n.op, ast.USub):
            return -v
        return ~v if isinstance(n.op, ast.Invert) else +v

    _BIN: ClassVar[dict[type, Callable[[Any, Any], Any]]] = {
        ast.Add: lambda a, b: a + b,
        ast.Sub: lambda a, b: a - b,
        ast.Mult: lambda a, b: a * b,
        ast.BitAnd: lambda a, b: a & b,
        ast.BitOr: lambda a, b: a | b,
        ast.BitXor: lambda a, b: a ^ b,
        ast.LShift: lambda a, b: a << b,
        ast.RShift: lambda a, b: a >> b,
        ast.Div: lambda a, b: a / b,
        ast.FloorDiv: lambda a, b: a // b,
        ast.Mod: lambda a, b: a % b,
        ast.Pow: lambda a, b: a**b,
    }

    def binop(self, op: type, a: Any, b: Any) -> Any:
        return self._BIN[op](a, b)

    def e_BinOp(self, n: ast.BinOp) -> Any:
        return self.binop(type(n.op), self.eval(n.left), self.eval(n.right))

    _CMP: ClassVar[dict[type, Callable[[Any, Any], Any]]] = {
        ast.Eq: lambda a, b: a == b,
        ast.NotEq: lambda a, b: a != b,
        ast.Lt: lambda a, b: a < b,
        ast.LtE: lambda a, b: a <= b,
        ast.Gt: lambda a, b: a > b,
        ast.GtE: lambda a, b: a >= b,
        ast.In: lambda a, b: a in b,
        ast.NotIn: lambda a, b: a not in b,
        ast.Is: lambda a, b: a is b,
        ast.IsNot: lambda a, b: a is not b,
    }

    def e_Compare(self, n: ast.Compare) -> Any:
        left = self.eval(n.left)
        result: Any = True
        for op, right_node in zip(n.ops, n.comparators, strict=True):
            right = self.eval(right_node)
            if isinstance(right, Val) and not isinstance(left, Val):
                left = coerce(left, right.ty) if isinstance(left, int) else left
            one = self._CMP[type(op)](left, right)
            if result is True:
                result = one
            elif isinstance(result, Val) or isinstance(one, Val):
                result = (result if isinstance(result, Val) else one) & one
            else:
                result = result and one
            left = right
        return result

    def e_BoolOp(self, n: ast.BoolOp) -> Any:
        is_and = isinstance(n.op, ast.And)
        value = self.eval(n.values[0])
        hint: bool | None = None
        for node in n.values[1:]:
            if isinstance(value, _Hint):
                hint = value.taken
                value = value.value
            if not isinstance(value, Val):
                if bool(value) != is_and:
                    return value
                value = self.eval(node)
                continue
            e = Emitter.current
            value = truth(value)
            more, end = e.label("more"), e.label("bool")
            before = e.block
            e.cond_branch(value, more if is_and else end, end if is_and else more)
            e.open(more)
            right = self.eval(node)
            if isinstance(right, _Hint):
                right = right.value
            right = truth(right) if isinstance(right, Val) else const(int(bool(right)), "i1")
            after = e.block
            e.branch(end)
            e.open(end)
            short = "false" if is_and else "true"
            value = e.val("i1", f"phi i1 [ {short}, %{before} ], [ {right.ref}, %{after} ]")
        return _Hint(value, hint) if hint is not None and isinstance(value, Val) else value

    def e_IfExp(self, n: ast.IfExp) -> Any:
        cond = self.eval(n.test)
        if isinstance(cond, _Hint):
            cond = cond.value
        cond = _decided(cond)
        if not isinstance(cond, Val):
            return self.eval(n.body if cond else n.orelse)
        e = Emitter.current
        then, other, end = e.label("then"), e.label("else"), e.label("end")
        e.cond_branch(truth(cond), then, other)
        arms = []
        for label, node in ((then, n.body), (other, n.orelse)):
            e.open(label)
            v = self.eval(node)
            arms.append((e.block, v))
            e.branch(end)
        e.open(end)
        return self.phi([v for _, v in arms], [b for b, _ in arms])

    def e_Lambda(self, n: ast.Lambda) -> Any:
        raise CompileError("no lambda in this language")

    def e_Call(self, n: ast.Call) -> Any:
        func = self.eval(n.func)
        args: list[Any] = []
        for a in n.args:
            if isinstance(a, ast.Starred):
                args.extend(self.eval(a.value))
            else:
                args.append(self.eval(a))
        kwargs = {k.arg: self.eval(k.value) for k in n.keywords if k.arg}
        return call(func, args, kwargs)


def call(func: Any, args: Sequence[Any], kwargs: dict[str, Any] | None = None) -> Any:
    """Call `func` as the language does: an `Fn`, an inline function, or anything else at once."""
    kwargs = kwargs or {}
    if isinstance(func, Fn):
        return func.call(args)
    plain = getattr(func, "__func__", func)
    if getattr(plain, "__wb_inline__", False):
        bound = getattr(func, "__self__", None)
        return _Frame(plain, None).run([bound, *args] if bound is not None else args, kwargs)
    return func(*args, **kwargs)


def _decided(cond: Any) -> Any:
    """A condition on constants as a plain value, where holes are known (see regions)."""
    if isinstance(cond, Val) and Emitter.current.fixed is not None:
        known = number_of(cond)
        return cond if known is None else bool(known)
    return cond


def truth(v: Val) -> Val:
    """A condition as i1: any other integer is compared with zero."""
    return v if v.ty == "i1" else v != 0
