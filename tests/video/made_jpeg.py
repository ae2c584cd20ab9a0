"""Lossless JPEG images for tests, coded as ITU-T T.81 says, for no library at hand codes every predictor."""

import numpy as np


def predicted(image, y, x, c, predictor, middle, first):
    """Return T.81's prediction, written for a reader: `first` is the first line since the last restart."""
    if y == first:
        return middle if x == 0 else image[y, x - 1, c]
    if x == 0:
        return image[y - 1, x, c]
    left, above, corner = (int(image[y - j, x - i, c]) for i, j in ((1, 0), (0, 1), (1, 1)))
    return {
        1: left,
        2: above,
        3: corner,
        4: left + above - corner,
        5: left + (above - corner >> 1),
        6: above + (left - corner >> 1),
        7: left + above >> 1,
    }[predictor]


def coded(image, *, bits, predictor=1, shift=0, restart_rows=0, interleaved=True, fill=b""):
    """Return an image (rows, columns, components) as lossless JPEG, each category with a code of 5 bits."""
    rows, columns, count = image.shape
    small = (image >> shift).astype(np.int64)
    parts = [
        b"\xff\xd8\xff\xe0\x00\x04ab",
        b"\xff\xc4" + (2 + 17 + 17).to_bytes(2) + b"\x00" + bytes([0, 0, 0, 0, 17, *[0] * 11]) + bytes(range(17)),
        b"\xff\xc3"
        + (8 + 3 * count).to_bytes(2)
        + bytes([bits])
        + rows.to_bytes(2)
        + columns.to_bytes(2)
        + bytes([count]),
        b"".join(bytes([c + 1, 0x11, 0]) for c in range(count)),
        b"\xff\xdd\x00\x04" + (restart_rows * columns).to_bytes(2) if restart_rows else b"",
    ]
    for scan in [list(range(count))] if interleaved else [[c] for c in range(count)]:
        parts.append(b"\xff\xda" + (6 + 2 * len(scan)).to_bytes(2) + bytes([len(scan)]))
        parts += [bytes([c + 1, 0]) for c in scan] + [bytes([predictor, 0, shift])]
        written, first = "", 0
        for y in range(rows):
            if restart_rows and y and y % restart_rows == 0:
                parts += [packed(written), fill, bytes([0xFF, 0xD0 + (y // restart_rows - 1) % 8])]
                written, first = "", y
            for x in range(columns):
                for c in scan:
                    guess = predicted(small, y, x, c, predictor, 1 << bits - shift - 1, first)
                    difference = int(small[y, x, c] - guess + 32767) % 65536 - 32767  # -32767 to 32768
                    category = abs(difference).bit_length()
                    extra = difference if difference > 0 else difference + (1 << category) - 1
                    written += f"{category:05b}" + (f"{extra:0{category}b}" if 0 < category < 16 else "")
        parts.append(packed(written))
    return b"".join([*parts, b"\xff\xd9"])


def packed(written):
    written += "1" * (-len(written) % 8)
    return bytes(int(written[i : i + 8], 2) for i in range(0, len(written), 8)).replace(b"\xff", b"\xff\x00")
