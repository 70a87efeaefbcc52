//! Standard output: lines, tables and JSON objects. Data goes here and nothing else does.
//!
//! Everything is written as soon as it is known, so that a reader of a pipe sees pages as they come. Text of strangers
//! (names, content types, labels) is escaped, so that it can neither break a line nor steer a terminal.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use super::failure::Failure;

/// Where a command writes what it was asked for. Clones write to the same place.
#[derive(Clone)]
pub(crate) struct Output {
    json: bool,
    terminal: bool,
    writer: Arc<Mutex<dyn Write + Send>>,
}

impl Output {
    /// Standard output.
    pub(crate) fn standard(json: bool) -> Self {
        let terminal = io::stdout().is_terminal();
        Self { json, terminal, writer: Arc::new(Mutex::new(io::stdout())) }
    }

    /// Text for a person, kept in memory.
    pub(crate) fn captured() -> (Self, Arc<Mutex<Vec<u8>>>) {
        let buffer = Arc::new(Mutex::new(Vec::new()));
        let writer: Arc<Mutex<dyn Write + Send>> = Arc::<Mutex<Vec<u8>>>::clone(&buffer);
        (Self { json: false, terminal: true, writer }, buffer)
    }

    /// Whether objects are wanted in place of text.
    pub(crate) fn json(&self) -> bool {
        self.json
    }

    /// Whether a person reads along, for whom tables are aligned and sizes are rounded.
    pub(crate) fn terminal(&self) -> bool {
        self.terminal
    }

    /// Writes a line and flushes it.
    pub(crate) fn line(&self, text: &str) -> Result<(), Failure> {
        self.write(format!("{text}\n").as_bytes())
    }

    /// Writes bytes as they are and flushes them.
    pub(crate) fn write(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.write_all(bytes)?;
        Ok(writer.flush()?)
    }

    /// Writes an object on one line.
    pub(crate) fn object(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value).map_err(|error| Failure::local("cannot write JSON", &error))?;
        self.line(&text)
    }

    /// Writes `label  value` lines, the values below each other.
    pub(crate) fn facts(&self, facts: &[(&str, String)]) -> Result<(), Failure> {
        let width = facts.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
        facts.iter().try_for_each(|(label, value)| self.line(format!("{label:width$}  {value}").trim_end()))
    }
}

/// Escapes what could break a line or steer a terminal: control characters, and those that turn the direction of text.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        let turns_text =
            matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if character.is_control() || turns_text {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// How a column is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// A table that grows page by page: aligned under headings on a terminal, tab-separated without headings in a pipe.
pub(crate) struct Table<const N: usize> {
    output: Output,
    columns: [(&'static str, Align); N],
    widths: [usize; N],
    begun: bool,
}

impl<const N: usize> Table<N> {
    /// An empty table.
    pub(crate) fn new(output: &Output, columns: [(&'static str, Align); N]) -> Self {
        let widths = columns.map(|(heading, _)| heading.len());
        Self { output: output.clone(), columns, widths, begun: false }
    }

    /// Writes a page of rows. Columns widen with the pages and never narrow.
    pub(crate) fn page(&mut self, rows: &[[String; N]]) -> Result<(), Failure> {
        if !self.output.terminal() {
            let text: String = rows.iter().map(|row| row.join("\t") + "\n").collect();
            return self.output.write(text.as_bytes());
        }
        for row in rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        if !std::mem::replace(&mut self.begun, true) {
            self.set(&mut text, &self.columns.map(|(heading, _)| heading.to_owned()));
        }
        rows.iter().for_each(|row| self.set(&mut text, row));
        self.output.write(text.as_bytes())
    }

    fn set(&self, text: &mut String, row: &[String; N]) {
        let mut line = String::new();
        for ((cell, (_, align)), width) in row.iter().zip(self.columns).zip(self.widths) {
            let written = match align {
                Align::Left => write!(line, "{cell:<width$}  "),
                Align::Right => write!(line, "{cell:>width$}  "),
            };
            debug_assert!(written.is_ok(), "writing to a string cannot fail");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(buffer: &Mutex<Vec<u8>>) -> String {
        String::from_utf8(buffer.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn what_could_steer_a_terminal_is_escaped_and_other_text_is_not() {
        assert_eq!(escape("a\x1b[31m\tb\n\u{202e}c\u{9b}"), "a\\u{1b}[31m\\tb\\n\\u{202e}c\\u{9b}");
        assert_eq!(escape("Grüße 世界 'x' \\"), "Grüße 世界 'x' \\");
    }

    #[test]
    fn a_table_is_aligned_on_a_terminal() {
        let (output, buffer) = Output::captured();
        let mut table = Table::new(&output, [("ID", Align::Left), ("SIZE", Align::Right)]);
        table.page(&[["a".to_owned(), "1".to_owned()], ["long".to_owned(), "12345".to_owned()]]).unwrap();
        table.page(&[["b".to_owned(), "2".to_owned()]]).unwrap();
        assert_eq!(text(&buffer), "ID     SIZE\na         1\nlong  12345\nb         2\n");
    }

    #[test]
    fn a_table_in_a_pipe_is_tab_separated() {
        let (mut output, buffer) = Output::captured();
        output.terminal = false;
        Table::new(&output, [("ID", Align::Left), ("SIZE", Align::Right)])
            .page(&[["a".to_owned(), "1".to_owned()]])
            .unwrap();
        assert_eq!(text(&buffer), "a\t1\n");
    }
}
