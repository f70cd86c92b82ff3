//! What the demo prints: a story for people, or one JSON object for programs.

use std::io::{self, IsTerminal};

use crate::cli::output;

/// Writes lines to standard output, with colour where that is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Out {
    colour: bool,
    quiet: bool,
}

/// How a piece of text looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// A heading.
    Heading,
    /// As it should be.
    Good,
    /// A refusal or failure.
    Bad,
}

impl Look {
    /// Select Graphic Rendition parameters (ECMA-48 8.3.117).
    const fn code(self) -> &'static str {
        match self {
            Self::Heading => "1",
            Self::Good => "32",
            Self::Bad => "31",
        }
    }
}

impl Out {
    /// Colour only on a terminal, and only if the user does not object; `quiet` drops the story
    /// because a machine reads the output.
    pub(super) fn new(no_color: bool, quiet: bool) -> Self {
        Self {
            colour: !no_color && !quiet && io::stdout().is_terminal(),
            quiet,
        }
    }

    /// One line of the story.
    pub(super) fn line(self, text: impl AsRef<str>) {
        if !self.quiet {
            output::line(text.as_ref());
        }
    }

    /// A line for whoever reads the output, story or not.
    pub(super) fn result(self, text: impl AsRef<str>) {
        output::line(text.as_ref());
    }

    /// A line on standard error.
    pub(super) fn complain(self, text: impl AsRef<str>) {
        output::error(text.as_ref());
    }

    /// `text` in that look.
    pub(super) fn paint(self, look: Look, text: &str) -> String {
        if self.colour {
            format!("\u{1b}[{}m{text}\u{1b}[0m", look.code())
        } else {
            text.to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_for_machines_and_for_pipes_has_no_colour() {
        for out in [Out::new(true, false), Out::new(false, true)] {
            assert_eq!(out.paint(Look::Bad, "refused"), "refused");
        }
        let colourful = Out {
            colour: true,
            quiet: false,
        };
        assert_eq!(colourful.paint(Look::Good, "ok"), "\u{1b}[32mok\u{1b}[0m");
    }
}
