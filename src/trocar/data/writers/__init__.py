"""Writers of the formats of annotation tools, one file a format; `trocar.data.convert` calls them."""
