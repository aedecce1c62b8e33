//! How the table of fields is written: what a field holds and whether sidewing acts on it.
//!
//! One table ([`super::fields`]) is read by the checker, the JSON Schema and the suggestions.

/// One field of a mapping.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) support: Support,
    pub(super) required: bool,
    pub(super) doc: &'static str,
}

/// What a field holds.
#[derive(Debug)]
pub(super) enum Kind {
    Text,
    Bool,
    /// `on` or `off`, as text or as a boolean.
    OnOff,
    /// A whole number of at least this.
    Int(u64),
    /// Any number, zero or more.
    Number,
    /// See [`super::Duration`]; whether zero has a meaning.
    Duration(Zero),
    /// See [`super::ByteSize`]; whether zero has a meaning.
    Size(Zero),
    OneOf(&'static [&'static str]),
    /// One of the built words; the others are known, and refused by name.
    Choice {
        built: &'static [&'static str],
        not_yet: &'static [&'static str],
        /// What to do instead of one that is not built.
        instead: &'static str,
    },
    /// `address:port` to listen on.
    Bind,
    /// The same, or `unix:/path`.
    BindOrSocket,
    /// Text, a number or a boolean.
    Scalar,
    /// See [`super::parse_cron`].
    Cron,
    /// Text, or several.
    TextOrList,
    /// Anything at all.
    Any,
    List(&'static Kind),
    /// Any keys, values of one kind.
    MapOf(&'static Kind),
    Fields(&'static [Field]),
    /// A mapping with these fields; any other key holds this kind, and is not supported yet.
    OpenFields(&'static [Field], &'static Kind),
    /// A mapping; or a list, the form whose feature is not there yet.
    FieldsOrList(&'static [Field], &'static [Field]),
    /// The params of a connector: see [`super::params`].
    Params,
}

/// Whether zero is a value like any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Zero {
    Allowed,
    Refused,
}

/// Whether sidewing acts on a field.
#[derive(Debug, Clone, Copy)]
pub(super) enum Support {
    Built,
    /// A built section with an `enabled` field, on when absent; switched off, what is in it is checked by form only.
    Toggled,
    /// Known, refused; an empty value and the listed ones ask for nothing and are accepted.
    NotYet(&'static [&'static str]),
    /// A section with an `enabled` field, refused unless switched off; what `enabled` is when absent.
    Switch {
        default_on: bool,
    },
    /// The name of another era, and today's.
    Renamed(&'static str),
}

impl Field {
    pub(super) const fn built(name: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self { name, kind, support: Support::Built, required: false, doc }
    }

    pub(super) const fn required(name: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self { name, kind, support: Support::Built, required: true, doc }
    }

    pub(super) const fn not_yet(name: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self { name, kind, support: Support::NotYet(&[]), required: false, doc }
    }

    /// Not there yet, but these values ask for nothing.
    pub(super) const fn only(
        name: &'static str,
        kind: Kind,
        off: &'static [&'static str],
        doc: &'static str,
    ) -> Self {
        Self { name, kind, support: Support::NotYet(off), required: false, doc }
    }

    /// A section that may say `enabled: false`.
    pub(super) const fn toggled(name: &'static str, fields: &'static [Field], doc: &'static str) -> Self {
        Self { name, kind: Kind::Fields(fields), support: Support::Toggled, required: false, doc }
    }

    /// A section that is not there yet and may say `enabled: false`.
    pub(super) const fn switch(
        name: &'static str,
        fields: &'static [Field],
        default_on: bool,
        doc: &'static str,
    ) -> Self {
        Self {
            name,
            kind: Kind::Fields(fields),
            support: Support::Switch { default_on },
            required: false,
            doc,
        }
    }

    pub(super) const fn renamed(name: &'static str, today: &'static str) -> Self {
        Self { name, kind: Kind::Any, support: Support::Renamed(today), required: false, doc: "" }
    }
}
