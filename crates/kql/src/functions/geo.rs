//! Geography on the sphere: distances, directions and geohashes. The Earth is a sphere of 6,371,010 m, as it is for Kusto.

use std::sync::Arc;

use indexmap::IndexMap;

use super::Function;
use super::signature::{Arg, LONG, REAL, Resolved, STR, fixed, optional};
use crate::types::Type;
use crate::value::{Dynamic, Value};

/// Metres.
const EARTH_RADIUS: f64 = 6_371_010.0;
const BASE32: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";
/// Characters of a geohash at most.
const MAX_GEOHASH: usize = 18;

pub(super) static FUNCTIONS: &[Function] = &[
    Function::new(
        "geo_distance_2points",
        |a| reals(a, 4, Type::Real),
        |_, a| two_points(a).map_or(Value::Null, |(p, q)| Value::Real(p.angle_to(&q) * EARTH_RADIUS)),
    ),
    Function::new(
        "geo_azimuth",
        |a| reals(a, 4, Type::Real),
        |_, a| two_points(a).and_then(|(p, q)| p.azimuth_to(&q)).map_or(Value::Null, Value::Real),
    ),
    Function::new("geo_point_in_circle", |a| reals(a, 5, Type::Bool), |_, a| in_circle(a)),
    Function::new("geo_line_length", |a| fixed(a, &[super::signature::DYNAMIC], Type::Real), |_, a| line_length(&a[0])),
    Function::new("geo_point_to_geohash", resolve_to_geohash, |_, a| point_to_geohash(a)),
    Function::new(
        "geo_geohash_to_central_point",
        |a| fixed(a, &[STR], Type::Dynamic),
        |_, a| cell(&a[0]).map_or(Value::Null, |cell| cell.center()),
    ),
    Function::new(
        "geo_geohash_to_polygon",
        |a| fixed(a, &[STR], Type::Dynamic),
        |_, a| cell(&a[0]).map_or(Value::Null, |cell| cell.polygon()),
    ),
    Function::new("geo_geohash_neighbors", |a| fixed(a, &[STR], Type::Dynamic), |_, a| neighbors(&a[0])),
];

fn reals(args: &[Arg<'_>], count: usize, ty: Type) -> Result<Resolved, String> {
    fixed(args, &[REAL; 5][..count], ty)
}

/// A point in degrees, within its bounds.
#[derive(Clone, Copy, PartialEq)]
struct Point {
    longitude: f64,
    latitude: f64,
}

impl Point {
    fn new(longitude: f64, latitude: f64) -> Option<Point> {
        let valid = (-180.0..=180.0).contains(&longitude) && (-90.0..=90.0).contains(&latitude);
        valid.then_some(Point { longitude, latitude })
    }

    /// The angle between two points, by the haversine formula.
    fn angle_to(&self, other: &Point) -> f64 {
        let (a, b) = (self.latitude.to_radians(), other.latitude.to_radians());
        let turn = (other.longitude - self.longitude).to_radians();
        let half = ((b - a) / 2.0).sin().powi(2) + a.cos() * b.cos() * (turn / 2.0).sin().powi(2);
        2.0 * half.sqrt().min(1.0).asin()
    }

    /// Direction in radians, clockwise from north; None for one and the same or opposite points.
    fn azimuth_to(&self, other: &Point) -> Option<f64> {
        let (a, b) = (self.latitude.to_radians(), other.latitude.to_radians());
        let turn = (other.longitude - self.longitude).to_radians();
        let (east, north) = (turn.sin() * b.cos(), a.cos() * b.sin() - a.sin() * b.cos() * turn.cos());
        let defined = east.hypot(north) > 1e-15;
        defined.then(|| east.atan2(north).rem_euclid(2.0 * std::f64::consts::PI))
    }
}

fn real(value: &Value) -> Option<f64> {
    match value {
        Value::Real(v) => Some(*v),
        _ => None,
    }
}

fn two_points(args: &[Value]) -> Option<(Point, Point)> {
    let first = Point::new(real(&args[0])?, real(&args[1])?)?;
    Some((first, Point::new(real(&args[2])?, real(&args[3])?)?))
}

fn in_circle(args: &[Value]) -> Value {
    let inside = two_points(args).zip(real(&args[4]).filter(|radius| *radius > 0.0));
    inside.map_or(Value::Null, |((p, q), radius)| Value::Bool(p.angle_to(&q) * EARTH_RADIUS <= radius))
}

/// Length of a GeoJSON LineString or MultiLineString in metres.
fn line_length(line: &Value) -> Value {
    fn of_line(points: &Dynamic) -> Option<f64> {
        let Dynamic::Array(points) = points else { return None };
        let points: Option<Vec<Point>> = points
            .iter()
            .map(|point| match point {
                Dynamic::Array(pair) if pair.len() >= 2 => Point::new(pair[0].as_real()?, pair[1].as_real()?),
                _ => None,
            })
            .collect();
        let points = points.filter(|points| points.len() > 1)?;
        Some(points.windows(2).map(|pair| pair[0].angle_to(&pair[1]) * EARTH_RADIUS).sum())
    }
    let length = line.as_bag().and_then(|bag| match (bag.get("type")?, bag.get("coordinates")?) {
        (Dynamic::String(kind), points) if **kind == *"LineString" => of_line(points),
        (Dynamic::String(kind), Dynamic::Array(lines)) if **kind == *"MultiLineString" => lines.iter().map(of_line).sum::<Option<f64>>(),
        _ => None,
    });
    length.map_or(Value::Null, Value::Real)
}

fn geometry(kind: &str, coordinates: Dynamic) -> Value {
    let entries: [(Arc<str>, Dynamic); 2] = [(Arc::from("type"), Dynamic::string(kind)), (Arc::from("coordinates"), coordinates)];
    Value::Dynamic(Dynamic::Bag(Arc::new(IndexMap::from(entries))))
}

/// A geohash cell: bits of longitude and latitude interleaved, longitude first.
struct Cell {
    longitude: u64,
    latitude: u64,
    characters: usize,
}

impl Cell {
    fn bits(characters: usize) -> (u32, u32) {
        let total = characters as u32 * 5;
        (total.div_ceil(2), total / 2)
    }

    fn of(point: Point, characters: usize) -> Cell {
        let (x_bits, y_bits) = Cell::bits(characters);
        let index = |value: f64, low: f64, span: f64, bits: u32| {
            let cells = (1_u64 << bits) as f64;
            (((value - low) / span * cells) as u64).min((1_u64 << bits) - 1)
        };
        Cell { longitude: index(point.longitude, -180.0, 360.0, x_bits), latitude: index(point.latitude, -90.0, 180.0, y_bits), characters }
    }

    fn text(&self) -> String {
        let (mut x_bits, mut y_bits) = Cell::bits(self.characters);
        let mut text = String::with_capacity(self.characters);
        let mut longitude_next = true;
        for _ in 0..self.characters {
            let mut digit = 0;
            for _ in 0..5 {
                let (bits, value) = if longitude_next { (&mut x_bits, self.longitude) } else { (&mut y_bits, self.latitude) };
                *bits -= 1;
                digit = digit << 1 | (value >> *bits & 1) as usize;
                longitude_next = !longitude_next;
            }
            text.push(char::from(BASE32[digit]));
        }
        text
    }

    /// West, south, east, north.
    fn edges(&self) -> [f64; 4] {
        let (x_bits, y_bits) = Cell::bits(self.characters);
        let (width, height) = (360.0 / (1_u64 << x_bits) as f64, 180.0 / (1_u64 << y_bits) as f64);
        let west = self.longitude as f64 * width - 180.0;
        let south = self.latitude as f64 * height - 90.0;
        [west, south, west + width, south + height]
    }

    fn center(&self) -> Value {
        let [west, south, east, north] = self.edges();
        geometry("Point", pair((west + east) / 2.0, (south + north) / 2.0))
    }

    fn polygon(&self) -> Value {
        let [west, south, east, north] = self.edges();
        let ring = vec![pair(west, south), pair(east, south), pair(east, north), pair(west, north), pair(west, south)];
        geometry("Polygon", Dynamic::array(vec![Dynamic::array(ring)]))
    }
}

fn pair(x: f64, y: f64) -> Dynamic {
    Dynamic::array(vec![Dynamic::Real(x), Dynamic::Real(y)])
}

fn cell(text: &Value) -> Option<Cell> {
    let text = text.as_str()?;
    if text.is_empty() || text.len() > MAX_GEOHASH {
        return None;
    }
    let mut cell = Cell { longitude: 0, latitude: 0, characters: text.len() };
    let mut longitude_next = true;
    for byte in text.bytes() {
        let digit = BASE32.iter().position(|known| *known == byte.to_ascii_lowercase())? as u64;
        for bit in (0..5).rev() {
            let axis = if longitude_next { &mut cell.longitude } else { &mut cell.latitude };
            *axis = *axis << 1 | (digit >> bit & 1);
            longitude_next = !longitude_next;
        }
    }
    Some(cell)
}

fn resolve_to_geohash(args: &[Arg<'_>]) -> Result<Resolved, String> {
    optional(args, &[REAL, REAL, LONG], 2, Type::String)
}

fn point_to_geohash(args: &[Value]) -> Value {
    let text = (|| {
        let point = Point::new(real(&args[0])?, real(&args[1])?)?;
        let accuracy = args.get(2).map_or(Some(5), Value::as_long)?;
        let characters = usize::try_from(accuracy).ok().filter(|n| (1..=MAX_GEOHASH).contains(n))?;
        Some(Cell::of(point, characters).text())
    })();
    Value::string(text.unwrap_or_default())
}

/// The cells around, in Kusto's order; none beyond a pole.
fn neighbors(text: &Value) -> Value {
    let Some(center) = cell(text) else {
        return Value::Null;
    };
    let (x_bits, y_bits) = Cell::bits(center.characters);
    let around = [(-1, 0), (-1, -1), (0, -1), (1, -1), (1, 1), (1, 0), (0, 1), (-1, 1)];
    let cells = around.iter().filter_map(|(dx, dy)| {
        let latitude = center.latitude.checked_add_signed(*dy).filter(|y| *y < 1 << y_bits)?;
        let longitude = center.longitude.wrapping_add_signed(*dx) & ((1 << x_bits) - 1);
        Some(Dynamic::string(Cell { longitude, latitude, characters: center.characters }.text()))
    });
    Value::array(cells.collect())
}
