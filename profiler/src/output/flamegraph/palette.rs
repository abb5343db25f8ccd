//! Colours of a flamegraph: one hue for each class of frame, a few shades of it for the names.
//!
//! Hues differ in lightness too, and all are light enough for black text. A shade depends on the
//! name alone, so that a function looks the same in every picture; no two classes share a shade,
//! so that a colour tells the class.

use crate::output::frame_class::FrameClass;

/// A colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rgb {
    /// Red part.
    pub(super) red: u8,
    /// Green part.
    pub(super) green: u8,
    /// Blue part.
    pub(super) blue: u8,
}

/// The frame below all processes.
pub(super) const ALL_FRAME: Rgb = Rgb {
    red: 222,
    green: 222,
    blue: 222,
};

/// Behind everything.
pub(super) const BACKGROUND: Rgb = Rgb {
    red: 250,
    green: 250,
    blue: 250,
};

/// Shades of one class.
pub(super) const SHADES: u8 = 8;

/// How much lighter a shade is than the one before it.
const STEP: u8 = 3;

/// The colour that stands for a class in the legend.
pub(super) fn base(class: FrameClass) -> Rgb {
    tone(class, SHADES / 2)
}

/// The colour of a frame: its class's hue in a shade chosen by its name.
pub(super) fn shade(class: FrameClass, name: &str) -> Rgb {
    // FNV-1a: stable across machines and releases, unlike the standard library's hasher.
    let mut hash: u32 = 0x811c_9dc5;
    for byte in name.bytes() {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    let [_, _, high, _] = hash.to_le_bytes();
    tone(class, high % SHADES)
}

/// The class that a colour stands for.
pub(super) fn class_of(color: Rgb) -> Option<FrameClass> {
    FrameClass::ALL
        .into_iter()
        .find(|class| (0..SHADES).any(|step| tone(*class, step) == color))
}

fn tone(class: FrameClass, step: u8) -> Rgb {
    let (red, green, blue) = match class {
        FrameClass::Process => (192, 186, 214),
        FrameClass::Kernel => (112, 166, 220),
        FrameClass::Native => (228, 144, 76),
        FrameClass::Inlined => (233, 201, 106),
        FrameClass::Jit => (118, 184, 128),
        FrameClass::Python => (222, 170, 196),
        FrameClass::Marker => (168, 168, 168),
    };
    let lighter = step * STEP;
    Rgb {
        red: red + lighter,
        green: green + lighter,
        blue: blue + lighter,
    }
}

#[cfg(test)]
mod tests {
    use super::{FrameClass, SHADES, base, class_of, shade, tone};

    /// Every shade of every class tells its class, so no two classes share one.
    #[test]
    fn colour_tells_the_class() {
        for class in FrameClass::ALL {
            for step in 0..SHADES {
                assert_eq!(class_of(tone(class, step)), Some(class));
            }
            assert_eq!(class_of(base(class)), Some(class));
            assert_eq!(class_of(shade(class, "main")), Some(class));
        }
        assert_eq!(class_of(super::ALL_FRAME), None);
    }

    /// Black text is readable on every shade: contrast of at least 7 to 1 (WCAG 2.2, AAA).
    #[test]
    fn black_text_is_readable() {
        let part = |value: u8| {
            let value = f64::from(value) / 255.0;
            if value <= 0.04045 {
                value / 12.92
            } else {
                ((value + 0.055) / 1.055).powf(2.4)
            }
        };
        for color in FrameClass::ALL.map(|class| tone(class, 0)) {
            let light =
                0.2126 * part(color.red) + 0.7152 * part(color.green) + 0.0722 * part(color.blue);
            assert!((light + 0.05) / 0.05 >= 7.0, "{color:?}");
        }
    }
}
