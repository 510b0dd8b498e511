//! A terminal, as far as progress bars use one: what stands on it, and whether anything ran over its edge.

/// A grid of so many columns, with as many rows as are needed.
#[derive(Debug)]
pub(crate) struct Screen {
    columns: usize,
    rows: Vec<Vec<char>>,
    at: (usize, usize),
    /// Rows whose text went on in the next row.
    pub(crate) wrapped: Vec<String>,
    /// Sequences that nobody who only draws bars sends, such as one that clears the whole screen.
    pub(crate) strange: Vec<String>,
}

impl Screen {
    /// Shows all that was written to a terminal.
    pub(crate) fn show(columns: usize, written: &str) -> Screen {
        let mut screen =
            Screen { columns, rows: vec![Vec::new()], at: (0, 0), wrapped: Vec::new(), strange: Vec::new() };
        let mut rest = written.chars();
        while let Some(c) = rest.next() {
            match c {
                '\r' => screen.at.1 = 0,
                '\n' => screen.move_to(screen.at.0 + 1),
                '\u{1b}' => {
                    let mut sequence = String::new();
                    for c in rest.by_ref() {
                        sequence.push(c);
                        if c.is_ascii_alphabetic() {
                            break;
                        }
                    }
                    screen.obey(&sequence);
                }
                c => screen.put(c),
            }
        }
        screen
    }

    /// The rows that hold something.
    pub(crate) fn text(&self) -> Vec<String> {
        let rows = self.rows.iter().map(|row| row.iter().collect::<String>().trim_end().to_owned());
        rows.filter(|row| !row.is_empty()).collect()
    }

    fn move_to(&mut self, row: usize) {
        self.at.0 = row;
        while self.rows.len() <= row {
            self.rows.push(Vec::new());
        }
    }

    fn obey(&mut self, sequence: &str) {
        let (arguments, command) = sequence.split_at(sequence.len().saturating_sub(1));
        let number = arguments.trim_start_matches('[').parse().unwrap_or(1);
        match command {
            "A" => self.at.0 = self.at.0.saturating_sub(number),
            "B" => self.move_to(self.at.0 + number),
            "K" if arguments == "[2" => self.rows[self.at.0].clear(),
            "K" => self.rows[self.at.0].truncate(self.at.1),
            // Colours, and hiding the cursor.
            "m" | "h" | "l" => {}
            _ => self.strange.push(sequence.to_owned()),
        }
    }

    fn put(&mut self, c: char) {
        if self.at.1 == self.columns {
            let row: String = self.rows[self.at.0].iter().collect();
            // A row that is filled up by spaces ends there; the next character begins the next row.
            if c != ' ' && !row.ends_with(' ') {
                self.wrapped.push(row);
            }
            self.move_to(self.at.0 + 1);
            self.at.1 = 0;
        }
        let row = &mut self.rows[self.at.0];
        while row.len() <= self.at.1 {
            row.push(' ');
        }
        row[self.at.1] = c;
        self.at.1 += 1;
    }
}
