//! What a front end tells of the process that it belongs to, and knows from nobody else.

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct About {
    pub spicepod: SpicepodAbout,
    pub listeners: Vec<ListenerAbout>,
}

/// The spicepod that is served.
#[derive(Debug, Clone, Default)]
pub struct SpicepodAbout {
    pub name: String,
    /// `version:` as written.
    pub version: String,
}

/// A bound listener.
#[derive(Debug, Clone)]
pub struct ListenerAbout {
    /// What is spoken there: `http`, `flight`, `metrics`.
    pub name: &'static str,
    /// Where: an address with its port, or a path.
    pub endpoint: String,
}
