//! One drawing, two formats.

use plotters::prelude::{BitMapBackend, DrawingBackend, SVGBackend};

use super::canvas::{Canvas, Drawn, Habits, SCALE, WIDTH};
use super::frame::Frame;
use super::{ChartError, Figure};

/// A figure in its frame that can draw itself on any sheet.
pub(super) trait Draw {
    /// What stands around it.
    fn frame(&self) -> &Frame;
    /// Where the figure itself ends.
    fn bottom(&self) -> f64;
    /// Draws what is inside the frame.
    fn draw_inside<DB: DrawingBackend>(&self, canvas: &Canvas<DB>) -> Drawn
    where
        DB::ErrorType: 'static;

    /// Draws all of it.
    fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<DB>) -> Drawn
    where
        DB::ErrorType: 'static,
    {
        self.frame().draw(canvas, self.bottom())?;
        self.draw_inside(canvas)
    }
}

/// A part of a figure, as wide as the sheet.
pub(super) trait DrawPanel {
    /// Its height.
    fn height(&self) -> f64;
    /// Draws it from this height on.
    fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<DB>, top: f64) -> Drawn
    where
        DB::ErrorType: 'static;
}

/// A figure of panels, one below the other.
pub(super) struct Panels<P> {
    pub(super) frame: Frame,
    pub(super) panels: Vec<P>,
    /// What the last panel leaves below itself.
    pub(super) beneath: f64,
}

impl<P: DrawPanel> Draw for Panels<P> {
    fn frame(&self) -> &Frame {
        &self.frame
    }

    fn bottom(&self) -> f64 {
        let heights: f64 = self.panels.iter().map(DrawPanel::height).sum();
        self.frame.top() + heights - self.beneath
    }

    fn draw_inside<DB: DrawingBackend>(&self, canvas: &Canvas<DB>) -> Drawn
    where
        DB::ErrorType: 'static,
    {
        let mut top = self.frame.top();
        for panel in &self.panels {
            panel.draw(canvas, top)?;
            top += panel.height();
        }
        Ok(())
    }
}

/// Draws a figure as SVG and as PNG.
pub(super) fn render(id: String, drawing: &impl Draw) -> Result<Figure, ChartError> {
    let size = (pixels(WIDTH), pixels(drawing.frame().height(drawing.bottom())));
    Ok(Figure {
        title: drawing.frame().title.clone(),
        svg: svg(drawing, size)?,
        png: png(drawing, size)?,
        id,
    })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the size of a sheet; the cast saturates"
)]
fn pixels(length: f64) -> u32 {
    (length * SCALE).ceil() as u32
}

fn svg(drawing: &impl Draw, size: (u32, u32)) -> Result<String, ChartError> {
    let mut text = String::new();
    {
        let canvas = Canvas::new(SVGBackend::with_string(&mut text, size), Habits::SVG)?;
        drawing.draw(&canvas)?;
        canvas.present()?;
    }
    // The backend's own head says the size in its doubled pixels and has no
    // name for a reader who cannot see the picture.
    let body = text.split_once('>').map_or("", |(_, body)| body);
    let title = escaped(&drawing.frame().title);
    Ok(format!(
        "<svg width=\"{}\" height=\"{}\" viewBox=\"0 0 {} {}\" \
         xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" aria-label=\"{title}\">\n\
         <title>{title}</title>{body}",
        f64::from(size.0) / SCALE,
        f64::from(size.1) / SCALE,
        size.0,
        size.1,
    ))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn png(drawing: &impl Draw, size: (u32, u32)) -> Result<Vec<u8>, ChartError> {
    let mut pixels = vec![0; size.0 as usize * size.1 as usize * 3];
    {
        let canvas = Canvas::new(BitMapBackend::with_buffer(&mut pixels, size), Habits::BITMAP)?;
        drawing.draw(&canvas)?;
        canvas.present()?;
    }
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, size.0, size.1);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Best);
    let mut writer = encoder.write_header().map_err(ChartError::Png)?;
    writer.write_image_data(&pixels).map_err(ChartError::Png)?;
    writer.finish().map_err(ChartError::Png)?;
    Ok(file)
}
