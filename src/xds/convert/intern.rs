//! One copy of each text of a response, however many resources repeat it.

use std::sync::Arc;

use rustc_hash::FxHashSet;

/// Texts seen so far. Kept for one response only, so it cannot outgrow what the response held.
#[derive(Debug)]
pub struct Interner {
    texts: FxHashSet<Arc<str>>,
}

impl Default for Interner {
    fn default() -> Self {
        let texts = std::iter::once(Arc::from("")).collect();
        Self { texts }
    }
}

impl Interner {
    /// The shared copy of `text`.
    pub fn share(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return Arc::clone(known);
        }
        let text: Arc<str> = text.into();
        self.texts.insert(Arc::clone(&text));
        text
    }

    /// The shared copy of `text`, or of `default` when it is empty.
    pub fn share_or(&mut self, text: &str, default: &str) -> Arc<str> {
        self.share(if text.is_empty() { default } else { text })
    }
}
