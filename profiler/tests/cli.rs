//! What the command line says to what is typed, without privileges: transcripts in `tests/cli`.
//! `TRYCMD=overwrite` takes what it says now as right.

/// Every transcript holds.
#[test]
fn transcripts() {
    trycmd::TestCases::new().case("tests/cli/*.trycmd");
}
