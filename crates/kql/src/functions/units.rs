//! `convert_angle`, `convert_length` and their kin: a value from one unit to another, units named as Kusto names them.

use super::Function;
use super::signature::{Arg, REAL, Resolved, STR, constant_text, fixed};
use crate::types::Type;
use crate::value::Value;

pub(super) static FUNCTIONS: &[Function] = &[
    Function::new("convert_angle", |a| resolve(a, angle), |_, a| convert(a, angle)),
    Function::new("convert_energy", |a| resolve(a, energy), |_, a| convert(a, energy)),
    Function::new("convert_force", |a| resolve(a, force), |_, a| convert(a, force)),
    Function::new("convert_length", |a| resolve(a, length), |_, a| convert(a, length)),
    Function::new("convert_mass", |a| resolve(a, mass), |_, a| convert(a, mass)),
    Function::new("convert_speed", |a| resolve(a, speed), |_, a| convert(a, speed)),
    Function::new("convert_temperature", |a| resolve(a, temperature), |_, a| convert(a, temperature)),
    Function::new("convert_volume", |a| resolve(a, volume), |_, a| convert(a, volume)),
];

/// A unit: `base = value * scale + offset`.
#[derive(Clone, Copy)]
struct Unit {
    scale: f64,
    offset: f64,
}

type Lookup = fn(&str) -> Option<Unit>;

fn resolve(args: &[Arg<'_>], lookup: Lookup) -> Result<Resolved, String> {
    for index in 1..args.len().min(3) {
        if let Some(unit) = constant_text(args, index)
            && lookup(unit).is_none()
        {
            return Err(format!("argument {}: the unit {unit:?} is not known", index + 1));
        }
    }
    fixed(args, &[REAL, STR, STR], Type::Real)
}

fn convert(args: &[Value], lookup: Lookup) -> Value {
    let unit = |value: &Value| value.as_str().and_then(lookup);
    match (&args[0], unit(&args[1]), unit(&args[2])) {
        (Value::Real(value), Some(from), Some(to)) => Value::Real((value * from.scale + from.offset - to.offset) / to.scale),
        _ => Value::Null,
    }
}

fn scaled(scale: f64) -> Option<Unit> {
    Some(Unit { scale, offset: 0.0 })
}

/// Finds a unit in a table, or as a metric prefix before the unit `base` (whose own scale is `unit`).
fn metric(name: &str, table: &[(&str, f64)], base: &str, unit: f64) -> Option<Unit> {
    const PREFIXES: [(&str, f64); 13] = [
        ("", 1.0),
        ("nano", 1e-9),
        ("micro", 1e-6),
        ("milli", 1e-3),
        ("centi", 1e-2),
        ("deci", 1e-1),
        ("deca", 1e1),
        ("hecto", 1e2),
        ("kilo", 1e3),
        ("mega", 1e6),
        ("giga", 1e9),
        ("tera", 1e12),
        ("peta", 1e15),
    ];
    if let Some((_, scale)) = table.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
        return scaled(*scale);
    }
    let lower = name.to_ascii_lowercase();
    let prefix = lower.strip_suffix(&base.to_ascii_lowercase())?;
    PREFIXES.iter().find(|(known, _)| *known == prefix).and_then(|(_, factor)| scaled(factor * unit))
}

fn angle(name: &str) -> Option<Unit> {
    const DEGREE: f64 = std::f64::consts::PI / 180.0;
    let table = [
        ("Arcminute", DEGREE / 60.0),
        ("Arcsecond", DEGREE / 3600.0),
        ("Gradian", DEGREE * 0.9),
        ("NatoMil", std::f64::consts::PI / 3200.0),
        ("Revolution", 2.0 * std::f64::consts::PI),
    ];
    metric(name, &table, "Radian", 1.0).or_else(|| metric(name, &[], "Degree", DEGREE))
}

fn energy(name: &str) -> Option<Unit> {
    const BTU: f64 = 1_055.055_852_62;
    let table = [
        ("BritishThermalUnit", BTU),
        ("KilobritishThermalUnit", BTU * 1e3),
        ("MegabritishThermalUnit", BTU * 1e6),
        ("GigabritishThermalUnit", BTU * 1e9),
        ("Calorie", 4.184),
        ("Kilocalorie", 4184.0),
        ("Megacalorie", 4.184e6),
        ("Erg", 1e-7),
        ("FootPound", 1.355_817_948_331_400_4),
        ("HorsepowerHour", 2_684_519.537_696_173),
    ];
    metric(name, &table, "Joule", 1.0)
        .or_else(|| metric(name, &[], "WattHour", 3600.0))
        .or_else(|| metric(name, &[], "WattDay", 86_400.0))
        .or_else(|| metric(name, &[], "ElectronVolt", 1.602_176_634e-19))
}

fn force(name: &str) -> Option<Unit> {
    const POUND: f64 = 4.448_221_615_260_5;
    let table = [
        ("Dyn", 1e-5),
        ("KilogramForce", 9.806_65),
        ("KiloPond", 9.806_65),
        ("TonneForce", 9806.65),
        ("PoundForce", POUND),
        ("KilopoundForce", POUND * 1e3),
        ("OunceForce", POUND / 16.0),
        ("Poundal", 0.138_254_954_376),
        ("ShortTonForce", POUND * 2000.0),
    ];
    metric(name, &table, "Newton", 1.0)
}

fn length(name: &str) -> Option<Unit> {
    let table = [
        ("Angstrom", 1e-10),
        ("AstronomicalUnit", 149_597_870_700.0),
        ("Chain", 20.1168),
        ("Fathom", 1.8288),
        ("Foot", 0.3048),
        ("Hand", 0.1016),
        ("Inch", 0.0254),
        ("Microinch", 0.0254e-6),
        ("Mil", 0.0254e-3),
        ("Mile", 1609.344),
        ("NauticalMile", 1852.0),
        ("Yard", 0.9144),
    ];
    metric(name, &table, "Meter", 1.0)
}

fn mass(name: &str) -> Option<Unit> {
    const POUND: f64 = 0.453_592_37;
    let table = [
        ("Grain", POUND / 7000.0),
        ("Ounce", POUND / 16.0),
        ("Pound", POUND),
        ("Kilopound", POUND * 1e3),
        ("Megapound", POUND * 1e6),
        ("Stone", POUND * 14.0),
        ("ShortHundredweight", POUND * 100.0),
        ("LongHundredweight", POUND * 112.0),
        ("ShortTon", POUND * 2000.0),
        ("LongTon", POUND * 2240.0),
        ("Tonne", 1e3),
        ("Kilotonne", 1e6),
        ("Megatonne", 1e9),
    ];
    metric(name, &table, "Gram", 1e-3)
}

fn speed(name: &str) -> Option<Unit> {
    if name.eq_ignore_ascii_case("Knot") {
        return scaled(1852.0 / 3600.0);
    }
    let lower = name.to_ascii_lowercase();
    let (distance, time) = lower.split_once("per")?;
    let seconds = match time {
        "second" => 1.0,
        "minute" => 60.0,
        "hour" => 3600.0,
        _ => return None,
    };
    scaled(length(distance)?.scale / seconds)
}

fn temperature(name: &str) -> Option<Unit> {
    let (scale, offset) = match name.to_ascii_lowercase().as_str() {
        "kelvin" => (1.0, 0.0),
        "degreecelsius" => (1.0, 273.15),
        "millidegreecelsius" => (1e-3, 273.15),
        "degreefahrenheit" => (5.0 / 9.0, 459.67 * 5.0 / 9.0),
        "degreerankine" => (5.0 / 9.0, 0.0),
        "degreedelisle" => (-2.0 / 3.0, 373.15),
        "degreenewton" => (100.0 / 33.0, 273.15),
        "degreereaumur" => (1.25, 273.15),
        _ => return None,
    };
    Some(Unit { scale, offset })
}

fn volume(name: &str) -> Option<Unit> {
    const CUBIC_INCH: f64 = 1.638_706_4e-5;
    const GALLON: f64 = 231.0 * CUBIC_INCH;
    const IMPERIAL_GALLON: f64 = 4.546_09e-3;
    let table = [
        ("AcreFoot", 43_560.0 * 1728.0 * CUBIC_INCH),
        ("CubicFoot", 1728.0 * CUBIC_INCH),
        ("CubicYard", 46_656.0 * CUBIC_INCH),
        ("UsGallon", GALLON),
        ("UsQuart", GALLON / 4.0),
        ("UsPint", GALLON / 8.0),
        ("UsOunce", GALLON / 128.0),
        ("OilBarrel", GALLON * 42.0),
        ("ImperialGallon", IMPERIAL_GALLON),
        ("ImperialPint", IMPERIAL_GALLON / 8.0),
        ("ImperialOunce", IMPERIAL_GALLON / 160.0),
        ("MetricCup", 0.25e-3),
        ("MetricTeaspoon", 5e-6),
    ];
    if let Some(unit) = metric(name, &table, "Liter", 1e-3) {
        return Some(unit);
    }
    let lower = name.to_ascii_lowercase();
    let side = length(lower.strip_prefix("cubic")?)?;
    scaled(side.scale.powi(3))
}
