"""What kernels cannot say in Python: octets read or stored at once, wherever they lie.

The plain loop over eight octets costs three times as much.
"""

from llvmlite import ir  # type: ignore[import-untyped]

from collectors.jit import intrinsic, types

_WORD = ir.IntType(64)
# Octets that must follow the last that is read for its own sake.
PADDING = 16


def _load(context, builder, kind, array, at, word_type=_WORD):
    data = context.make_array(kind)(context, builder, array).data
    place = builder.bitcast(builder.gep(data, [at]), word_type.as_pointer())
    word = builder.load(place)
    word.align = 1
    return word


@intrinsic
def little(typingctx, data, at):
    """data[at : at + 8], first octet least significant, as u8.  ``data`` u1, ``at`` i8."""

    def generate(context, builder, signature, args):
        return _load(context, builder, signature.args[0], args[0], args[1])

    return types.uint64(data, types.int64), generate


@intrinsic
def big(typingctx, data, at):
    """data[at : at + 8], first octet most significant, as u8."""

    def generate(context, builder, signature, args):
        word = _load(context, builder, signature.args[0], args[0], args[1])
        return builder.bswap(word)

    return types.uint64(data, types.int64), generate


def _big(bits):
    """As ``big``, of fewer octets."""

    def typed(typingctx, data, at):
        def generate(context, builder, signature, args):
            word = _load(context, builder, signature.args[0], args[0], args[1], ir.IntType(bits))
            return builder.zext(builder.bswap(word), _WORD)

        return types.int64(data, types.int64), generate

    return intrinsic(typed)


# data[at : at + 2] and data[at : at + 4], first octet most significant, as i8.
big16 = _big(16)
big32 = _big(32)


@intrinsic
def put(typingctx, data, at, word):
    """Store a u8 in data[at : at + 8], least significant octet first.  ``data`` u1, ``at`` i8."""

    def generate(context, builder, signature, args):
        base = context.make_array(signature.args[0])(context, builder, args[0]).data
        place = builder.bitcast(builder.gep(base, [args[1]]), _WORD.as_pointer())
        builder.store(args[2], place, align=1)
        return context.get_dummy_value()

    return types.void(data, types.int64, types.uint64), generate


@intrinsic
def swapped(typingctx, word):
    """A u8 with its octets in the other order."""

    def generate(context, builder, signature, args):
        return builder.bswap(args[0])

    return types.uint64(types.uint64), generate
