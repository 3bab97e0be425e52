"""What several studies share: parts that are kept between runs, images, nets, tables, and all processors at once."""
