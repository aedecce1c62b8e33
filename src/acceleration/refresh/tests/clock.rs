//! Every way to write a time: the six formats, and the types that each is found in.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Date32Array, Decimal128Array, Float64Array, Int64Array, LargeStringArray, StringArray,
    StringViewArray, TimestampMicrosecondArray, TimestampNanosecondArray, TimestampSecondArray, UInt32Array,
};
use chrono::DateTime;

use crate::acceleration::store::TimeFormat;

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400 * SECOND;
/// The tick 0, a midnight.
const BEGIN: i64 = 19_600 * DAY;

/// Moments are whole ticks; how long one is, and how it is written, depends on the column.
#[derive(Debug, Clone, Copy)]
pub enum Clock {
    Nanoseconds,
    Seconds,
    ZonedMicroseconds,
    UnixSeconds,
    UnsignedSeconds,
    FloatSeconds,
    DecimalSeconds,
    UnixMillis,
    IsoText,
    ZonedIsoText,
    Date,
    DateText,
}

impl Clock {
    pub const ALL: [Self; 12] = [
        Self::Nanoseconds,
        Self::Seconds,
        Self::ZonedMicroseconds,
        Self::UnixSeconds,
        Self::UnsignedSeconds,
        Self::FloatSeconds,
        Self::DecimalSeconds,
        Self::UnixMillis,
        Self::IsoText,
        Self::ZonedIsoText,
        Self::Date,
        Self::DateText,
    ];

    pub fn format(self) -> TimeFormat {
        match self {
            Self::Nanoseconds | Self::Seconds => TimeFormat::Timestamp,
            Self::ZonedMicroseconds => TimeFormat::TimestampTz,
            Self::UnixSeconds | Self::UnsignedSeconds | Self::FloatSeconds | Self::DecimalSeconds => {
                TimeFormat::UnixSeconds
            }
            Self::UnixMillis => TimeFormat::UnixMillis,
            Self::IsoText | Self::ZonedIsoText => TimeFormat::Iso8601,
            Self::Date | Self::DateText => TimeFormat::Date,
        }
    }

    /// The length of a tick, in ns.
    pub fn tick(self) -> i64 {
        match self {
            Self::Nanoseconds => 1,
            Self::ZonedMicroseconds => 1_000,
            Self::UnixMillis => 1_000_000,
            Self::FloatSeconds | Self::DecimalSeconds => SECOND / 2,
            Self::Seconds | Self::UnixSeconds | Self::UnsignedSeconds => SECOND,
            Self::IsoText | Self::ZonedIsoText => 250_000_000,
            Self::Date | Self::DateText => DAY,
        }
    }

    /// In ns since the epoch.
    pub fn moment(self, tick: i64) -> i64 {
        BEGIN + tick * self.tick()
    }

    /// The first moment that a bound at `moment` lets through: a number of seconds is asked for in whole ones.
    pub fn bound(self, moment: i64) -> i64 {
        match self {
            Self::FloatSeconds | Self::DecimalSeconds => moment.div_euclid(SECOND) * SECOND,
            _ => moment,
        }
    }

    pub fn column(self, ticks: &[Option<i64>]) -> ArrayRef {
        let moments = ticks.iter().map(|tick| tick.map(|tick| self.moment(tick)));
        let text = |moment: i64, zone: bool| {
            let time = DateTime::from_timestamp_nanos(moment);
            match zone {
                false => time.format("%Y-%m-%dT%H:%M:%S%.3f").to_string(),
                // The same moments as the clocks of different places show them.
                true => {
                    let hours = (moment / SECOND % 5) as i32 - 2;
                    let offset = chrono::FixedOffset::east_opt(hours * 3_600).unwrap();
                    time.with_timezone(&offset).to_rfc3339()
                }
            }
        };
        match self {
            Self::Nanoseconds => Arc::new(moments.collect::<TimestampNanosecondArray>()),
            Self::Seconds => {
                Arc::new(moments.map(|at| at.map(|at| at / SECOND)).collect::<TimestampSecondArray>())
            }
            Self::ZonedMicroseconds => {
                let all: TimestampMicrosecondArray = moments.map(|at| at.map(|at| at / 1_000)).collect();
                Arc::new(all.with_timezone("+02:00"))
            }
            Self::UnixSeconds => Arc::new(moments.map(|at| at.map(|at| at / SECOND)).collect::<Int64Array>()),
            Self::UnsignedSeconds => {
                Arc::new(moments.map(|at| at.map(|at| (at / SECOND) as u32)).collect::<UInt32Array>())
            }
            Self::FloatSeconds => {
                Arc::new(moments.map(|at| at.map(|at| at as f64 / SECOND as f64)).collect::<Float64Array>())
            }
            Self::DecimalSeconds => {
                let tenths = moments.map(|at| at.map(|at| i128::from(at / (SECOND / 10))));
                let all: Decimal128Array = tenths.collect();
                Arc::new(all.with_precision_and_scale(20, 1).unwrap())
            }
            Self::UnixMillis => {
                Arc::new(moments.map(|at| at.map(|at| at / 1_000_000)).collect::<Int64Array>())
            }
            Self::IsoText => {
                Arc::new(moments.map(|at| at.map(|at| text(at, false))).collect::<StringViewArray>())
            }
            Self::ZonedIsoText => {
                Arc::new(moments.map(|at| at.map(|at| text(at, true))).collect::<LargeStringArray>())
            }
            Self::Date => Arc::new(moments.map(|at| at.map(|at| (at / DAY) as i32)).collect::<Date32Array>()),
            Self::DateText => {
                let date = |at: i64| DateTime::from_timestamp_nanos(at).format("%Y-%m-%d").to_string();
                Arc::new(moments.map(|at| at.map(date)).collect::<StringArray>())
            }
        }
    }
}
