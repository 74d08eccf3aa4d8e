"""The nouns of dropjax: sites, schemes, draws, and their text form. Imports ops alone."""
