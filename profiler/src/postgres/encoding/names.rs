//! Encodings by the names that the server gives them (`pg_enc2name_tbl` in `src/common/encnames.c`).

use encoding_rs::{
    BIG5, EUC_JP, EUC_KR, GB18030, GBK, IBM866, ISO_8859_2, ISO_8859_3, ISO_8859_4, ISO_8859_5,
    ISO_8859_6, ISO_8859_7, ISO_8859_8, ISO_8859_10, ISO_8859_13, ISO_8859_14, ISO_8859_15,
    ISO_8859_16, KOI8_R, KOI8_U, SHIFT_JIS, WINDOWS_874, WINDOWS_1250, WINDOWS_1251, WINDOWS_1252,
    WINDOWS_1253, WINDOWS_1254, WINDOWS_1255, WINDOWS_1256, WINDOWS_1257, WINDOWS_1258,
};

use super::{Encoding, Steps};

/// All of them.
#[cfg(test)]
pub(in super::super) const ALL: [&str; 42] = [
    "SQL_ASCII",
    "EUC_JP",
    "EUC_CN",
    "EUC_KR",
    "EUC_TW",
    "EUC_JIS_2004",
    "UTF8",
    "MULE_INTERNAL",
    "LATIN1",
    "LATIN2",
    "LATIN3",
    "LATIN4",
    "LATIN5",
    "LATIN6",
    "LATIN7",
    "LATIN8",
    "LATIN9",
    "LATIN10",
    "WIN1256",
    "WIN1258",
    "WIN866",
    "WIN874",
    "KOI8R",
    "WIN1251",
    "WIN1252",
    "ISO_8859_5",
    "ISO_8859_6",
    "ISO_8859_7",
    "ISO_8859_8",
    "WIN1250",
    "WIN1253",
    "WIN1254",
    "WIN1255",
    "WIN1257",
    "KOI8U",
    "SJIS",
    "BIG5",
    "GBK",
    "UHC",
    "GB18030",
    "JOHAB",
    "SHIFT_JIS_2004",
];

impl Encoding {
    /// The encoding of a name.
    pub(in super::super) fn named(name: &[u8]) -> Option<Self> {
        let encoding = match name.to_ascii_uppercase().as_slice() {
            // Of those without a table no byte of a longer character is one of ASCII. `JOHAB` would have such: but the
            // server refuses them (`pg_johab_verifychar`).
            b"SQL_ASCII" | b"UTF8" | b"UNICODE" | b"MULE_INTERNAL" | b"EUC_TW"
            | b"EUC_JIS_2004" | b"JOHAB" => Self::Extended,
            b"EUC_JP" => Self::Safe(EUC_JP),
            b"EUC_KR" => Self::Safe(EUC_KR),
            b"EUC_CN" => Self::Safe(GBK),
            b"LATIN1" => Self::Latin1,
            b"LATIN2" => Self::Safe(ISO_8859_2),
            b"LATIN3" => Self::Safe(ISO_8859_3),
            b"LATIN4" => Self::Safe(ISO_8859_4),
            b"LATIN6" => Self::Safe(ISO_8859_10),
            b"LATIN7" => Self::Safe(ISO_8859_13),
            b"LATIN8" => Self::Safe(ISO_8859_14),
            b"LATIN9" => Self::Safe(ISO_8859_15),
            b"LATIN10" => Self::Safe(ISO_8859_16),
            b"ISO_8859_5" => Self::Safe(ISO_8859_5),
            b"ISO_8859_6" => Self::Safe(ISO_8859_6),
            b"ISO_8859_7" => Self::Safe(ISO_8859_7),
            b"ISO_8859_8" => Self::Safe(ISO_8859_8),
            b"KOI8R" => Self::Safe(KOI8_R),
            b"KOI8U" => Self::Safe(KOI8_U),
            b"WIN866" => Self::Safe(IBM866),
            b"WIN874" => Self::Safe(WINDOWS_874),
            b"WIN1250" => Self::Safe(WINDOWS_1250),
            b"WIN1251" => Self::Safe(WINDOWS_1251),
            b"WIN1252" => Self::Safe(WINDOWS_1252),
            b"WIN1253" => Self::Safe(WINDOWS_1253),
            // It has all that ISO 8859-9 has.
            b"WIN1254" | b"LATIN5" => Self::Safe(WINDOWS_1254),
            b"WIN1255" => Self::Safe(WINDOWS_1255),
            b"WIN1256" => Self::Safe(WINDOWS_1256),
            b"WIN1257" => Self::Safe(WINDOWS_1257),
            b"WIN1258" => Self::Safe(WINDOWS_1258),
            b"SJIS" => Self::Double(Steps::Sjis, Some(SHIFT_JIS)),
            b"SHIFT_JIS_2004" => Self::Double(Steps::Sjis, None),
            b"BIG5" => Self::Double(Steps::Two, Some(BIG5)),
            b"GBK" => Self::Double(Steps::Two, Some(GBK)),
            b"UHC" => Self::Double(Steps::Two, Some(EUC_KR)),
            b"GB18030" => Self::Double(Steps::Gb18030, Some(GB18030)),
            _ => return None,
        };
        Some(encoding)
    }
}
