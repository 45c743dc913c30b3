//! Singular values of a small matrix, in an order of operations that is fixed.

use super::row::dot;

/// Sweeps of rotations. Jacobi converges quadratically: a matrix of some hundred rows takes under ten.
const MOST_SWEEPS: usize = 40;

/// The singular values of the matrix with these rows, in no particular order, but always the same.
pub(super) fn singular_values(rows: &[&[f32]]) -> Vec<f64> {
    let width = rows.first().map_or(0, |row| row.len());
    assert!(rows.iter().all(|row| row.len() == width), "a window has rows of one length");
    let columns: Vec<Vec<f32>>;
    let sides: Vec<&[f32]> = if rows.len() <= width {
        rows.to_vec()
    } else {
        columns = (0..width).map(|i| rows.iter().map(|row| row[i]).collect()).collect();
        columns.iter().map(Vec::as_slice).collect()
    };
    let n = sides.len();
    let mut gram = vec![0.0; n * n];
    for i in 0..n {
        for j in i..n {
            let product = dot(sides[i], sides[j]);
            gram[i * n + j] = product;
            gram[j * n + i] = product;
        }
    }
    let values = eigenvalues(gram, n);
    let largest = values.iter().fold(0.0, |max: f64, &v| if v > max { v } else { max });
    let floor = n as f64 * f64::EPSILON * largest;
    values.into_iter().map(|v| if v > floor { v.sqrt() } else { 0.0 }).collect()
}

/// Eigenvalues of a symmetric matrix: cyclic Jacobi, row by row (Golub & Van Loan, Matrix Computations, 8.5).
fn eigenvalues(mut a: Vec<f64>, n: usize) -> Vec<f64> {
    let trace = (0..n).fold(0.0, |sum, i| sum + a[i * n + i].abs());
    let small = f64::EPSILON * trace;
    for _ in 0..MOST_SWEEPS {
        let mut off = 0.0;
        for i in 0..n {
            for j in i + 1..n {
                off += a[i * n + j] * a[i * n + j];
            }
        }
        // The eigenvalues are off by less than this, far below the root that is taken of them.
        if off <= small * small {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                rotate(&mut a, n, p, q);
            }
        }
    }
    (0..n).map(|i| a[i * n + i]).collect()
}

/// One rotation, which makes the element (p, q) zero.
fn rotate(a: &mut [f64], n: usize, p: usize, q: usize) {
    let apq = a[p * n + q];
    if apq == 0.0 {
        return;
    }
    let tau = (a[q * n + q] - a[p * n + p]) / (2.0 * apq);
    // tan of the smaller angle. Where tau² is infinite the angle is as good as none.
    let t = if tau >= 0.0 { 1.0 } else { -1.0 } / (tau.abs() + (1.0 + tau * tau).sqrt());
    let c = 1.0 / (1.0 + t * t).sqrt();
    let s = t * c;
    a[p * n + p] -= t * apq;
    a[q * n + q] += t * apq;
    a[p * n + q] = 0.0;
    a[q * n + p] = 0.0;
    for k in (0..n).filter(|&k| k != p && k != q) {
        let (kp, kq) = (a[k * n + p], a[k * n + q]);
        let (new_p, new_q) = (c * kp - s * kq, s * kp + c * kq);
        a[k * n + p] = new_p;
        a[p * n + k] = new_p;
        a[k * n + q] = new_q;
        a[q * n + k] = new_q;
    }
}
