"""A gate's verdict, told to people and to CI."""
