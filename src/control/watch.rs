//! temp
/// temp
#[derive(Debug)]
pub struct Watch;
impl Watch {
    /// temp
    #[must_use]
    pub fn new(_: Vec<std::path::PathBuf>) -> Self {
        Self
    }
    /// temp
    pub async fn changed(&mut self) {
        std::future::pending().await
    }
}
