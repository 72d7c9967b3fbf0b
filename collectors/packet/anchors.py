"""What kernels cannot say in Python: sixty-four bytes compared at a time, any number copied, and memory asked
for early.

Where may a token begin?  One vector instruction a comparison.

Written as LLVM vectors, because the plain loop is not vectorised as well: on random bytes this does 6.2
GB/s, the same test as a fixed loop of 64 that LLVM vectorises 3.1, a byte loop with a table 1.5; and the
answer is a bit mask, so what follows a hit costs nothing for the bytes that did not.
"""

from llvmlite import ir  # type: ignore[import-untyped]

from collectors.jit import intrinsic, types

WIDTH = 64
SECONDS_QUOTE = 12
SECONDS_SCORE = 4
_BYTE = ir.IntType(8)
_VECTOR = ir.VectorType(_BYTE, WIDTH)
_INDEX = ir.VectorType(ir.IntType(32), WIDTH)


def _splat(builder, byte):
    one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), byte, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, ir.Constant(_VECTOR, ir.Undefined), ir.Constant(_INDEX, [0] * WIDTH))


def _load(builder, pointer):
    vector = builder.load(builder.bitcast(pointer, _VECTOR.as_pointer()))
    vector.align = 1
    return vector


def _any_of(builder, vector, tuple_, first, count):
    found = None
    for i in range(first, first + count):
        equal = builder.icmp_unsigned("==", vector, _splat(builder, builder.extract_value(tuple_, i)))
        found = equal if found is None else builder.or_(found, equal)
    return found


def _first(builder, data, at):
    """Where data[at] is, the WIDTH bytes from there on, and which of them a token may begin with."""
    here = builder.gep(data, [at])
    byte = _load(builder, here)
    quote = builder.icmp_unsigned("==", byte, ir.Constant(_VECTOR, [ord('"')] * WIDTH))
    score = builder.icmp_unsigned("==", byte, ir.Constant(_VECTOR, [ord("_")] * WIDTH))
    return here, quote, score


def _after(builder, here):
    return _load(builder, builder.gep(here, [ir.Constant(ir.IntType(64), 1)]))


@intrinsic
def marks(typingctx, data, at):
    """Bit j: data[at + j] is a quotation mark or an underscore.  Reads data[at : at + WIDTH]."""

    def generate(context, builder, signature, args):
        array = context.make_array(signature.args[0])(context, builder, args[0])
        _, quote, score = _first(builder, array.data, args[1])
        return builder.bitcast(builder.or_(quote, score), ir.IntType(WIDTH))

    return types.uint64(data, types.int64), generate


@intrinsic
def near(typingctx, data, at, low, reach):
    """Bit j: data[at + j] is a quotation mark or an underscore, and the byte after it is one from ``low`` to
    ``low + reach``.  A third of the comparisons of ``anchors``, whose bits are among these: of bytes at
    random one place in 700.  Reads data[at : at + WIDTH + 1]."""

    def generate(context, builder, signature, args):
        array = context.make_array(signature.args[0])(context, builder, args[0])
        here, quote, score = _first(builder, array.data, args[1])
        beyond = builder.sub(_after(builder, here), _splat(builder, args[2]))
        within = builder.icmp_unsigned("<=", beyond, _splat(builder, args[3]))
        return builder.bitcast(builder.and_(builder.or_(quote, score), within), ir.IntType(WIDTH))

    return types.uint64(data, types.int64, types.uint8, types.uint8), generate


@intrinsic
def anchors(typingctx, data, at, seconds):
    """Bit j: data[at + j] and the byte after it are a pair that begins some token.

    ``seconds`` is a tuple of bytes: SECONDS_QUOTE that may follow a quotation mark, then SECONDS_SCORE
    that may follow an underscore; spare places repeat one.  Reads data[at : at + WIDTH + 1].
    """

    def generate(context, builder, signature, args):
        array = context.make_array(signature.args[0])(context, builder, args[0])
        here, quote, score = _first(builder, array.data, args[1])
        after = _after(builder, here)
        quoted = _any_of(builder, after, args[2], 0, SECONDS_QUOTE)
        scored = _any_of(builder, after, args[2], SECONDS_QUOTE, SECONDS_SCORE)
        pairs = builder.or_(builder.and_(quote, quoted), builder.and_(score, scored))
        return builder.bitcast(pairs, ir.IntType(WIDTH))

    return types.uint64(data, types.int64, seconds), generate


@intrinsic
def copy_octets(typingctx, out, to, data, at, size):
    """out[to : to + size] = data[at : at + size], of two u1 arrays that are not the same memory.

    A loop that says this is compiled octet by octet, since the two might overlap: 1.1 µs for 1400 octets
    where this takes 0.09.
    """

    def generate(context, builder, signature, args):
        target = context.make_array(signature.args[0])(context, builder, args[0]).data
        source = context.make_array(signature.args[2])(context, builder, args[2]).data
        raw, word, flag = _BYTE.as_pointer(), ir.IntType(64), ir.IntType(1)
        function = builder.module.declare_intrinsic("llvm.memcpy", [raw, raw, word])
        places = builder.gep(target, [args[1]]), builder.gep(source, [args[3]])
        builder.call(function, [*places, args[4], ir.Constant(flag, 0)])
        return context.get_dummy_value()

    return types.void(out, types.int64, data, types.int64, types.int64), generate


@intrinsic
def lowest(typingctx, mask):
    """Number of the lowest bit that is set; ``mask`` is a u8 that is not 0."""

    def generate(context, builder, signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@intrinsic
def prefetch(typingctx, array, index, line):
    """Ask for cache line number ``line`` of element ``index``; nobody waits for it."""

    def generate(context, builder, signature, args):
        kind = signature.args[0]
        data = context.make_array(kind)(context, builder, args[0]).data
        size = context.get_abi_sizeof(context.get_data_type(kind.dtype))
        place = builder.add(
            builder.mul(args[1], ir.Constant(ir.IntType(64), size)),
            builder.mul(args[2], ir.Constant(ir.IntType(64), 64)),
        )
        raw = _BYTE.as_pointer()
        flag = ir.IntType(32)
        function = builder.module.declare_intrinsic(
            "llvm.prefetch", [raw], ir.FunctionType(ir.VoidType(), [raw, flag, flag, flag])
        )
        address = builder.gep(builder.bitcast(data, raw), [place])
        builder.call(function, [address, flag(1), flag(3), flag(1)])
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64), generate
