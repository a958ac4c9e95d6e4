"""Fonts in a hand: TrueType and WOFF2, with alternates of each character."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import jax
import numpy as np
from jax import Array
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont

from jvae_jax.handwriting.hand import Hand
from jvae_jax.handwriting.outlines import Outline
from jvae_jax.handwriting.text import BASELINE, GAP, SPACE, glyph_outlines, is_full_width
from jvae_jax.trained_model import TrainedModel

FontFormat = Literal["ttf", "woff2"]
FORMATS = get_args(FontFormat)
"""Formats of fonts, which are the suffixes of their files."""

_UNITS = 1000
"""Units per em; an em is the height of the model's images."""
_OVERSAMPLING = 8
_MAX_GLYPHS = 65_000
_MAX_ERROR = 1.0
"""Distance of the font's quadratic curves from the outlines, in units."""
_NOTDEF_BOX = (60.0, 0.0, 440.0, 700.0)
"""Left, bottom, right and top of the box that stands for a missing character, in units."""
_NOTDEF_STROKE = 40.0


def build_font(
    model: TrainedModel,
    hand: Hand,
    *,
    key: Array,
    family: str = "Handwriting",
    format: FontFormat = "ttf",
    alternates: int = 3,
    variation: float = 0.5,
    characters: Mapping[str, str] | None = None,
    license: str = "",
) -> bytes:
    """Builds a font in a hand.

    It has a glyph for every class whose name is one character, a space, and a box for missing
    characters. The alternates of a glyph have styles of their own, and the feature ``calt`` takes
    the next one from letter to letter, so that equal letters differ.

    Args:
        model: model of grey characters with classes.
        hand: the hand.
        key: random key of the styles of the alternates.
        family: name of the font.
        format: ``ttf`` (TrueType) or ``woff2``, which is compressed, for web pages.
        alternates: number of glyphs of each character.
        variation: how much the style varies between alternates, relative to the hand's standard
            deviation; the first one has the hand's mean.
        characters: character of further classes, by their name.
        license: text of the licence.

    Returns:
        The content of the font file.

    Raises:
        ValueError: if the model has no class that is a character, or its images are coloured; if
            a class in ``characters`` doesn't exist or isn't mapped to one visible character, or two
            classes to the same; or if ``alternates`` is below 1, or a text too long.
        ModuleNotFoundError: if WOFF2 is requested without brotli.
    """
    # fontTools takes a quarter of a second to import, which other commands needn't wait for.
    from fontTools.feaLib.builder import addOpenTypeFeaturesFromString
    from fontTools.fontBuilder import FontBuilder
    from fontTools.misc.timeTools import timestampFromString
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    if alternates < 1:
        raise ValueError(f"alternates must be 1 or more, got {alternates}")
    for name, text, limit in (("family", family, 100), ("license", license, 10_000)):
        if len(text) > limit:
            raise ValueError(f"{name} must have at most {limit:,} letters, got {len(text):,}")
    if not family.strip():
        raise ValueError("the font needs a name, got an empty family")
    if format == "woff2":
        _check_brotli()
    labels = _labels_by_character(model, characters or {})
    if len(labels) * alternates > _MAX_GLYPHS:
        raise ValueError(
            f"a font has at most {_MAX_GLYPHS:,} glyphs, got {len(labels):,} characters with "
            f"{alternates} alternates each"
        )
    outlines: dict[str, Outline] = {}
    indices = list(labels.values())
    for alternate in range(alternates):
        noise_key, spread = jax.random.fold_in(key, alternate), variation if alternate else 0.0
        styles = hand.styles(len(labels), noise_key, spread)
        glyphs = glyph_outlines(model, styles, indices, list(labels))
        for character, glyph in zip(labels, glyphs, strict=True):
            outlines[_glyph_name(character, alternate)] = glyph
    drawn = {name: _draw(outline) for name, outline in outlines.items()}
    space = {"\u0020": "space", "\u00a0": "space"}
    if any(map(is_full_width, labels)):
        space["\u3000"] = "ideographicspace"
    blank = dict.fromkeys(dict.fromkeys(space.values()), round(SPACE * _UNITS))
    if "ideographicspace" in blank:
        blank["ideographicspace"] *= 2
    metrics = {".notdef": (500, round(_NOTDEF_BOX[0]))}
    metrics |= {name: (width, 0) for name, width in blank.items()}
    metrics |= {name: (width, left) for name, (_, width, left) in drawn.items()}
    builder = FontBuilder(_UNITS, isTTF=True)
    # The same font from the same hand, whenever it is built.
    timestamp = timestampFromString("Sat Jan  1 00:00:00 2000")
    builder.updateHead(created=timestamp, modified=timestamp)
    builder.font.recalcTimestamp = False
    builder.setupGlyphOrder(list(metrics))
    builder.setupCharacterMap(
        {ord(character): name for character, name in space.items()}
        | {ord(character): _glyph_name(character, 0) for character in labels}
    )
    empty = TTGlyphPen(None).glyph
    builder.setupGlyf(
        {".notdef": _missing_glyph()}
        | {name: empty() for name in blank}
        | {name: glyph for name, (glyph, _, _) in drawn.items()}
    )
    builder.setupHorizontalMetrics(metrics)
    ascent, descent = _vertical_metrics(outlines)
    builder.setupHorizontalHeader(ascent=ascent, descent=-descent, lineGap=0)
    builder.setupOS2(
        version=4,
        sTypoAscender=ascent,
        sTypoDescender=-descent,
        sTypoLineGap=0,
        usWinAscent=ascent,
        usWinDescent=descent,
        fsType=0,  # may be embedded and installed
        fsSelection=1 << 6 | 1 << 7,  # regular; line spacing from the sTypo metrics
        achVendID="NONE",
    )
    name = " ".join(family.split())
    builder.setupNameTable(
        {
            "familyName": name,
            "styleName": "Regular",
            "uniqueFontIdentifier": f"{name} {hand.fingerprint}".strip(),
            "fullName": name,
            "psName": _postscript_name(name),
            "version": "Version 1.000",
            "description": f"Characters in a hand, generated by jvae_jax ({model.name})",
            **({"licenseDescription": license} if license else {}),
        }
    )
    builder.setupPost()
    if alternates > 1:
        addOpenTypeFeaturesFromString(builder.font, _alternation(labels, alternates, blank))
    builder.font.flavor = "woff2" if format == "woff2" else None
    content = io.BytesIO()
    builder.font.save(content)
    return content.getvalue()


def render_glyphs(
    font: bytes, characters: Sequence[str], height: int, width: int
) -> Float[np.ndarray, "characters height width"]:
    """Renders glyphs by Pillow, as images of the model have them: an em high, centred.

    Args:
        font: content of a TrueType font of :func:`build_font`.
        characters: characters to render.
        height: height of the images, in pixels.
        width: width of the images, in pixels.

    Returns:
        Fraction of each pixel that is covered by ink.
    """
    drawing = ImageFont.truetype(io.BytesIO(font), _OVERSAMPLING * height)
    size = _OVERSAMPLING * width, _OVERSAMPLING * height
    images = []
    for character in characters:
        image = Image.new("L", size)
        left, top, right, bottom = drawing.getbbox(character, anchor="ls")
        # Full-width characters keep their height; others are centred.
        row = BASELINE * size[1] if is_full_width(character) else (size[1] - top - bottom) / 2
        place = (size[0] - left - right) / 2, row
        ImageDraw.Draw(image).text(place, character, font=drawing, fill=255, anchor="ls")
        images.append(np.asarray(image.resize((width, height), Image.Resampling.BOX)))
    return np.stack(images).astype(np.float32) / 255


def _labels_by_character(model: TrainedModel, characters: Mapping[str, str]) -> dict[str, int]:
    """Class of each character of the font."""
    names = model.category_names
    if not names:
        raise ValueError(f"{model.name or 'this model'} has no classes, so it makes no font")
    if unknown := [name for name in characters if name not in names]:
        raise ValueError(f"there is no class {unknown[0]}; there are {', '.join(names)}")
    labels: dict[str, int] = {}
    for label, name in enumerate(names):
        character = characters.get(name, name)
        if len(character) != 1:
            if name in characters:
                raise ValueError(f"class {name} must be mapped to one character, got {character!r}")
            continue
        if not character.isprintable() or character.isspace():
            raise ValueError(
                f"class {name} must be mapped to a visible character, got {character!r}"
            )
        if character in labels:
            other = names[labels[character]]
            raise ValueError(f"{character} is the character of both classes {other} and {name}")
        labels[character] = label
    if not labels:
        raise ValueError(
            f"{model.name or 'this model'} has no class that is a character; map classes to "
            "characters"
        )
    return labels


def _glyph_name(character: str, alternate: int) -> str:
    # The names of the Adobe Glyph List Specification.
    name = f"uni{ord(character):04X}" if character <= "\uffff" else f"u{ord(character):X}"
    return f"{name}.alt{alternate}" if alternate else name


def _draw(outline: Outline) -> tuple[object, int, int]:
    """Returns the glyph of an outline on the baseline, its advance and left side bearing."""
    from fontTools.pens.cu2quPen import Cu2QuPen
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    pen = TTGlyphPen(None)
    bearing = GAP / 2 * _UNITS
    if not outline.contours:
        return pen.glyph(), round(SPACE * _UNITS), 0
    left, _, right, _ = outline.box
    quadratic = Cu2QuPen(pen, max_err=_MAX_ERROR)
    for contour in outline.contours:
        # y upwards; outer contours then run clockwise, as in TrueType.
        points = contour * (_UNITS, -_UNITS) + (bearing - left * _UNITS, 0)
        quadratic.moveTo(tuple(points[0, 0]))
        for curve in points[:, 1:]:
            quadratic.curveTo(*map(tuple, curve))
        quadratic.closePath()
    glyph = pen.glyph()
    return glyph, round((right - left) * _UNITS + 2 * bearing), round(bearing)


def _missing_glyph() -> object:
    """A box of strokes."""
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    pen = TTGlyphPen(None)
    left, bottom, right, top = _NOTDEF_BOX
    inner = left + _NOTDEF_STROKE, bottom + _NOTDEF_STROKE
    outer = right - _NOTDEF_STROKE, top - _NOTDEF_STROKE
    for points in (
        [(left, bottom), (left, top), (right, top), (right, bottom)],
        [inner, (outer[0], inner[1]), outer, (inner[0], outer[1])],
    ):
        pen.moveTo(points[0])
        for point in points[1:]:
            pen.lineTo(point)
        pen.closePath()
    return pen.glyph()


def _vertical_metrics(outlines: Mapping[str, Outline]) -> tuple[int, int]:
    """Ascent and descent of the ink and some room, in units; at least those of an em."""
    boxes = [outline.box for outline in outlines.values() if outline.contours]
    top = max([BASELINE, *(-box[1] for box in boxes)])
    bottom = max([1 - BASELINE, *(box[3] for box in boxes)])
    return math.ceil(top * _UNITS), math.ceil(bottom * _UNITS)


def _postscript_name(family: str) -> str:
    ascii_name = "".join(each for each in family if each.isascii() and each.isalnum())
    return f"{ascii_name[:50] or 'Handwriting'}-Regular"


def _alternation(labels: Mapping[str, int], alternates: int, blank: Mapping[str, int]) -> str:
    """The feature ``calt``: each letter takes the alternate after that of the letter before it."""
    classes = [
        f"@alternate{index} = [{' '.join(_glyph_name(each, index) for each in labels)}];"
        for index in range(alternates)
    ]
    spaces = f"[{' '.join(blank)}]"
    rules = [
        f"  sub @alternate{index}{between} @alternate0' by @alternate{index + 1};"
        for index in range(alternates - 1)
        for between in ("", f" {spaces}")
    ]
    return "\n".join([*classes, "feature calt {", *rules, "} calt;"])


def _check_brotli() -> None:
    try:
        import brotli  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "WOFF2 needs brotli: pip install 'jvae_jax[font]'; or write a .ttf"
        ) from error
