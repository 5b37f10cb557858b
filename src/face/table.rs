//! Aligned columns for people.

use super::terminal::width;
use crate::report::text::{Limits, one_line};

/// Widest cell that others are aligned to; the row of a wider one goes on behind it.
const COLUMN_MAX: usize = 48;

/// Rows in aligned columns, two blanks between, no trailing blanks; the header row is first.
/// Cells are made harmless and single-line, and never cut: secrets in them are hidden later, as whole
/// ones. Ends with a line feed unless there is nothing.
pub fn render(headers: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = headers.iter().map(|header| (*header).to_owned()).collect();
    let all: Vec<Vec<String>> = std::iter::once(&head)
        .filter(|head| !head.is_empty())
        .chain(rows)
        .map(|row| row.iter().map(|cell| one_line(cell, Limits::OWN)).collect())
        .collect();
    let columns = all.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            all.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| width(cell))
                .filter(|columns| *columns <= COLUMN_MAX)
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut out = String::new();
    for row in all {
        let mut line = String::new();
        for (cell, columns) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.push_str(&" ".repeat(columns.saturating_sub(width(cell)) + 2));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_by_what_the_eye_sees() {
        let rows = [
            vec!["db".to_owned(), "infra.database".into(), "ready".into()],
            vec!["名前".to_owned(), "x".into(), String::new()],
            vec!["a\nb".to_owned()],
        ];
        assert_eq!(
            render(&["NAME", "TYPE", "STATUS"], &rows),
            "NAME   TYPE            STATUS\n\
             db     infra.database  ready\n\
             名前   x\n\
             a ⏎ b\n"
        );
        assert_eq!(render(&[], &[]), "");
        let long = "n".repeat(80);
        let rows = [
            vec!["db".to_owned(), "x".into()],
            vec![long.clone(), "y".into()],
        ];
        assert_eq!(render(&[], &rows), format!("db  x\n{long}  y\n"));
    }
}
