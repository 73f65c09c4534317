//! What records are to a model: rows of numbers, or texts.

use inference::spec::TextSpec;

/// Of one workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Numbers of a JSON record.
    Rows,
    /// The text of a JSON record, in `body`.
    Text,
}

/// Of a text; what is longer is cut.
pub const MAX_TOKENS: usize = 256;

impl Kind {
    /// As programs are told.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Text => "text",
        }
    }

    /// A model topic's `text`, as a line of a config file.
    pub fn config(self) -> String {
        match self {
            Self::Rows => String::new(),
            Self::Text => {
                format!("text = {{ path = \"$.body\", max_tokens = {MAX_TOKENS} }}\n")
            }
        }
    }

    /// The same, read.
    pub fn text(self) -> anyhow::Result<Option<TextSpec>> {
        #[derive(serde::Deserialize)]
        struct Line {
            text: Option<TextSpec>,
        }
        let line: Line = toml::from_str(&self.config())?;
        Ok(line.text)
    }

    /// Most records that are scored together where nothing else limits them: a model topic's own default for rows,
    /// and for texts about as many as its default of 256 tokens are.
    pub fn batch_records(self) -> usize {
        match self {
            Self::Rows => 1024,
            Self::Text => 8,
        }
    }
}
