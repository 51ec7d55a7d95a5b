"""Public keys that must be refused.

The small-order u coordinates are those of cr.yp.to/ecdh.html ("validate"), which RFC 7748 and libsodium also
list; the Ed25519 ones are the eight torsion points with their non-canonical encodings.
"""

P = 2**255 - 19

_ORDER_8 = [
    int.from_bytes(
        bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"), "little"
    ),
    int.from_bytes(
        bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"), "little"
    ),
]


def _bytes(value: int) -> bytes:
    return value.to_bytes(32, "little")


X25519_LOW_ORDER = [_bytes(u) for u in (0, 1, *_ORDER_8, P - 1)]

X25519_NON_CANONICAL = [
    *(_bytes(P + u) for u in range(19)),
    *(_bytes(u + (1 << 255)) for u in (0, 1, 9, *_ORDER_8, P - 1, P, P + 1)),
]

_ORDER_8_Y = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)
_SIGN = 1 << 255

ED25519_REFUSED = [
    # torsion: order 1, 2, 4, 4, 8 ...
    *(_bytes(y + sign) for y in (1, P - 1, 0, _ORDER_8_Y, P - _ORDER_8_Y) for sign in (0, _SIGN)),
    # non-canonical y
    *(_bytes(P + y + sign) for y in range(19) for sign in (0, _SIGN)),
    # not on the curve
    _bytes(2),
    # on the curve but outside the prime-order subgroup: base point + the point of order 2
    _bytes(P - 46316835694926478169428394003475163141307993866256225615783033603165251855960),
]
