//! Aligned columns for people: the one way from foreign names into a table on a terminal.

use std::{fmt, ops::Range};

use comfy_table::{CellAlignment, Table, presets::NOTHING};

use crate::printable::shortened;

/// Most characters of a cell. Names of C++ templates are long; names that a target makes up may be longer.
const CELL_MAX: usize = 400;

/// A table without lines.
pub(crate) struct Columns(Table);

impl Columns {
    /// A table with a head line.
    pub(crate) fn new<'a>(header: impl IntoIterator<Item = &'a str>) -> Self {
        let mut table = Table::new();
        table.load_style(NOTHING).set_header(header);
        Self(table)
    }

    /// A table with lines around everything.
    pub(crate) fn ruled<'a>(header: impl IntoIterator<Item = &'a str>) -> Self {
        let mut table = Table::new();
        table.set_header(header);
        Self(table)
    }

    /// A row, made printable.
    pub(crate) fn row<C: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = C>) {
        let shown = cells
            .into_iter()
            .map(|cell| shortened(cell.as_ref(), CELL_MAX).into_owned());
        self.0.add_row(shown);
    }

    /// Aligns columns at their ends, as figures are.
    pub(crate) fn right(&mut self, columns: Range<usize>) {
        let columns = self
            .0
            .column_iter_mut()
            .take(columns.end)
            .skip(columns.start);
        for column in columns {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

impl fmt::Display for Columns {
    /// Each line without blanks at its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .to_string()
            .lines()
            .try_for_each(|line| writeln!(f, "{}", line.trim_end()))
    }
}

#[cfg(test)]
mod tests {
    use super::Columns;
    use crate::printable::tests::{HOSTILE, is_safe};

    /// A row is a line, whatever its cells are called, and no cell is longer than a screen or two.
    #[test]
    fn hostile_cells_stay_in_their_line() {
        let mut table = Columns::new(["name", "count"]);
        let long = "\u{202e}".repeat(100_000);
        table.row([HOSTILE, "1"]);
        table.row([&long, "20"]);
        table.right(1..2);
        let text = table.to_string();
        assert!(is_safe(&text) && text.lines().count() == 3, "{text:?}");
        assert!(
            text.lines().all(|line| line.chars().count() < 500),
            "{text:?}"
        );
        assert!(text.contains("\\x1b]0;x\\x07\\n"), "{text}");
    }
}
